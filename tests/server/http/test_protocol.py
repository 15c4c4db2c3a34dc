"""Bytes on a socket: requests that are late, too large, ambiguous or malformed, and the state after them."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from mullama.struct import replace
from tests.server.server_fixture import (
    CHAT,
    PATIENT,
    SAYS_HELLO,
    RunningServer,
    StubRuntime,
    read_all,
    read_until,
    request,
    running_server,
)

QUICK = replace(PATIENT, header_time=0.2, keep_alive=0.2)
HOST = b"Host: localhost\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def quick() -> Iterator[RunningServer]:
    """A server with short time limits for headers."""
    with running_server(bounds=QUICK) as running:
        yield running


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


BODY = b'{"model":"tiny","messages":[{"role":"user","content":"x"}]}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (GET + b"Connection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n" + HOST + b"\r\n", 200),
        (b"\r\n\r\n" + GET + b"Connection: close\r\n\r\n", 200),
        (b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 400),
        (GET + HOST + b"\r\n", 400),
        (GET + b"Host: evil.example\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET /livez HTTP/9.9\r\n" + HOST + b"\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", 404),
        (b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET ?x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /li vez HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /liv\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /liv\x01z HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /livez\rX HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"SSH-2.0-OpenSSH_9.0\r\n", 400),
        (b"GET /livez HTTP/1.1\n" + HOST + b"\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\n\r\n", 400),
        (GET + b"X: a\rb\r\n\r\n", 400),
        (GET + b"X: a\r b\r\n\r\n", 400),
        (GET + b"X: a\x00b\r\n\r\n", 400),
        (GET + b"X : a\r\n\r\n", 400),
        (GET + b" folded: a\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b": empty\r\n\r\n", 400),
        (POST + b"Content-Length: 59\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 59\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 59\r\nContent-Length: 59\r\n\r\n" + BODY, 400),
        (POST + b"Content-Length: 59, 59\r\n\r\n" + BODY, 400),
        (POST + b"Content-Length: +59\r\n\r\n" + BODY, 400),
        (POST + b"Content-Length: -1\r\n\r\n" + BODY, 400),
        (POST + b"Content-Length: 0x3b\r\n\r\n" + BODY, 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n", 400),
    ],
    ids=lambda value: (
        value[:70].decode("latin-1").encode("unicode_escape").decode() if isinstance(value, bytes) else ""
    ),
)
def test_an_ambiguous_request_is_refused_and_the_connection_closed(
    server: RunningServer, raw: bytes, wanted: int
) -> None:
    answer = server.raw(raw)
    assert status(answer) == wanted
    assert answer.count(b"HTTP/1.1 %d " % wanted) == 1
    if wanted != 200:
        check_refusal(answer)


def check_refusal(answer: bytes) -> None:
    assert b"connection: close\r\n" in answer
    assert b'"error"' in answer
    assert b"x-request-id: req_" in answer


def test_white_space_around_a_header_is_no_part_of_its_value(server: RunningServer) -> None:
    raw = b"GET /api/version HTTP/1.1\r\nHost: \t localhost \t\r\nConnection: close\r\n\r\n"
    assert status(server.raw(raw)) == 200


def test_a_body_in_chunks_is_read(server: RunningServer) -> None:
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in (BODY[:10], BODY[10:]))
    raw = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"
    assert b"Hello" in server.raw(raw)


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat", "/v1/chat/completions"])
def test_a_refusal_has_the_shape_of_the_api(server: RunningServer, path: str) -> None:
    answer = server.raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX: a\x00\r\n\r\n".encode())
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert isinstance(error, str) == (path == "/api/chat")


def test_headers_may_be_64_and_32_kib_and_no_more(server: RunningServer) -> None:
    def with_headers(count: int, size: int) -> bytes:
        lines = b"".join(b"x-%03d: %b\r\n" % (n, b"v" * size) for n in range(count))
        return server.raw(GET + b"Connection: close\r\n" + lines + b"\r\n")

    assert status(with_headers(62, 10)) == 200
    assert status(with_headers(63, 10)) == 431
    assert status(with_headers(1, 30_000)) == 200
    assert status(with_headers(1, 33_000)) == 431
    assert status(with_headers(40, 1_000)) == 431
    assert status(with_headers(10_000, 10)) == 431
    assert status(with_headers(1, 1_000_000)) == 431


def test_an_address_may_be_8_kib_and_no_more(server: RunningServer) -> None:
    def of(size: int) -> int:
        return status(server.raw(b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"))

    assert of(8 * 1024) == 404
    assert of(8 * 1024 + 1) == 414
    assert of(1_000_000) == 414


@pytest.mark.parametrize(
    "endless",
    [
        GET + b"X: ",
        b"GET /",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
    ],
    ids=["header", "address", "chunk extension", "trailer"],
)
def test_a_part_that_never_ends_is_cut_off(endless: bytes) -> None:
    def go_on(connection: socket.socket) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 60:
            connection.send(b"a" * 65536)

    with running_server(bounds=replace(PATIENT, linger=1.0)) as server, server.connect() as connection:
        connection.sendall(endless)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            go_on(connection)


@pytest.mark.parametrize("first", [45_000, 400_000])
def test_a_client_that_sends_on_after_the_refusal_sees_it(server: RunningServer, first: int) -> None:
    with server.connect() as connection:
        connection.sendall(GET + b"X: " + b"v" * first)
        head = connection.recv(65536)
        for _ in range(10):
            connection.sendall(b"v" * 100_000)
        assert status(head) == 431


def response_to_half_a_request(server: RunningServer, half: bytes, drip: bytes = b"") -> bytes:
    """The response to a client that sends half a request and then nothing, or `drip` again and again.

    The time runs from the connect on. A client that is delayed beyond it has sent nothing, so its connection is closed
    without a response, and it tries again.
    """
    for _ in range(20):
        with suppress(ConnectionError), server.connect() as connection:
            connection.sendall(half)
            began = time.monotonic()
            while drip and time.monotonic() - began < 60:
                connection.settimeout(0.05)
                with suppress(TimeoutError):
                    connection.send(drip)
                    if connection.recv(1, socket.MSG_PEEK):
                        break
            connection.settimeout(60)
            if answer := read_all(connection):
                return answer
    return b""


@pytest.mark.parametrize("half", [b"G", b"GET /livez\r\n", b"GET /livez HTTP", GET, GET + b"X: a"])
def test_half_a_request_is_answered_with_408_in_time(quick: RunningServer, half: bytes) -> None:
    answer = response_to_half_a_request(quick, half)
    assert status(answer) == 408
    assert answer.count(b"HTTP/1.1 408 ") == 1
    check_refusal(answer)


def test_headers_that_drip_do_not_keep_a_connection(quick: RunningServer) -> None:
    assert status(response_to_half_a_request(quick, GET, drip=b"x")) == 408


def test_a_silent_connection_is_closed(quick: RunningServer) -> None:
    assert quick.raw(b"") == b""
    with running_server(bounds=replace(PATIENT, keep_alive=0.2)) as server, server.connect() as connection:
        connection.sendall(GET + b"\r\n")
        read_until(connection, b'{"status":"ok"}')
        assert connection.recv(10) == b""


def test_empty_lines_do_not_keep_a_connection() -> None:
    closed = False
    with running_server(bounds=replace(PATIENT, keep_alive=0.2)) as server, server.connect() as connection:
        connection.sendall(GET + b"\r\n")
        read_until(connection, b'{"status":"ok"}')
        connection.settimeout(0.05)
        began = time.monotonic()
        while not closed and time.monotonic() - began < 30:
            try:
                connection.send(b"\r\n")
                closed = connection.recv(10) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
    assert closed


def test_many_half_open_connections_do_not_slow_the_server(server: RunningServer) -> None:
    """They stay open: if the server waited for one of them, no request would be answered."""
    idle = [server.connect() for _ in range(150)]
    for n, connection in enumerate(idle):
        connection.sendall((b"", b"GET /", GET, POST + b"Content-Length: 9\r\n\r\n{")[n % 4])
    seconds = []
    for _ in range(20):
        began = time.monotonic()
        assert server.ask("GET", "/healthz").status == 200
        seconds.append(time.monotonic() - began)
    assert median(seconds) < 0.25
    for connection in idle:
        connection.close()


def test_a_second_request_before_the_first_answer_is_refused() -> None:
    runtime = StubRuntime(script=("gate", *SAYS_HELLO))
    chat = request("/v1/chat/completions", CHAT)
    with running_server(runtime) as server, server.connect() as connection:
        connection.sendall(chat + request("/api/v1/shutdown", {}))
        assert runtime.reached.acquire(timeout=60)
        server.open_gate("gate")
        answers = read_all(connection)
        assert b"Hello" in answers
        assert answers.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 400 " in answers
        assert not runtime.stopped.is_set()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
EARLY = {
    "an answer before the end of the body": GET + CHUNKED + b"0\r\n\r\n",
    "an error before the end of the body": b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    "a refusal of the headers": b"GET /livez HTTP/1.1\r\n\r\n",
    "a foreign host": b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "a body after an upgrade": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    "a body that is too large": POST + b"Content-Length: 99999999\r\n\r\n{}",
    "a request of HTTP/1.0": b"GET /livez HTTP/1.0\r\n" + HOST + b"\r\n",
    "the end of the connection": GET + b"Connection: close\r\n\r\n",
    "an ordinary request": GET + b"\r\n",
}
LATER = {
    "nothing": b"",
    "a request": GET + b"\r\n",
    "two requests": (GET + b"\r\n") * 2,
    "half a request": GET,
    "a request with a body": POST + b"Content-Length: 2\r\n\r\n{}",
    "a request in chunks": GET + CHUNKED + b"0\r\n\r\n",
    "garbage": b"\x00\x01\x02 garbage\r\n\r\n",
    "a long header": GET + b"X: " + b"y" * 50_000 + b"\r\n\r\n",
    "a long address": b"GET /" + b"y" * 50_000,
}


@pytest.mark.parametrize("early", EARLY)
def test_no_input_after_an_early_answer_writes_a_traceback(
    early: str, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name, later in LATER.items():
        for pieces in ((EARLY[early] + later,), (EARLY[early], later)):
            # The server may have closed the connection: a shutdown is then no ConnectionError, but a plain OSError.
            with server.connect() as connection, suppress(OSError):
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                answer = read_all(connection)
                assert answer[:9] in (b"HTTP/1.1 ", b""), (name, answer[:100])
    assert server.nothing_runs()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert server.ask("GET", "/livez").status == 200


@pytest.mark.parametrize(
    ("trailers", "wanted"),
    [
        (b"X: y\r\n", 200),
        (b"X: y\r\n" * 61, 200),
        (b"X: y\r\n" * 62, 431),
        (b"X: " + b"y" * 40_000 + b"\r\n", 431),
        (b"X: " + b"y" * 4_000 + b"\r\n" + b"Z: " + b"y" * 29_000 + b"\r\n", 431),
    ],
)
def test_trailers_count_with_the_headers(trailers: bytes, wanted: int, server: RunningServer) -> None:
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    assert status(server.raw(POST + b"Connection: close\r\n" + CHUNKED + chunk + trailers + b"\r\n")) == wanted


def test_a_hidden_second_request_is_never_served(server: RunningServer) -> None:
    """The body of a request that is refused by its headers cannot pass for a request."""
    hidden = request("/api/v1/shutdown", {})
    head = f"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(hidden)}\r\n\r\n"
    answer = server.raw(head.encode() + hidden)
    assert (status(answer), answer.count(b"HTTP/1.1 ")) == (404, 1)
    both = b"POST /v1/nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(server.raw(both + b"0\r\n\r\n" + hidden)) == 400
    assert not server.runtime.stopped.is_set()


def test_an_offer_to_upgrade_is_declined_and_the_request_served(server: RunningServer) -> None:
    """Java's client offers HTTP/2 in every first request, also with a body."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    framing = b"Content-Length: %d\r\n\r\n" % len(BODY)
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(POST + offer + framing + BODY)
            head, _, body = read_until(connection, b"Hello").partition(b"\r\n\r\n")
            assert status(head) == 200
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            while len(body) < length:
                body += connection.recv(length - len(body))
        connection.sendall(GET + offer + b"\r\n")
        assert b'{"status":"ok"}' in read_until(connection, b'"ok"}')
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(GET + websocket)
        assert b'{"status":"ok"}' in read_until(connection, b'"ok"}')


FEW = replace(PATIENT, connections=3)


def test_a_new_connection_takes_the_place_of_the_one_that_is_idle_for_longest() -> None:
    with running_server(bounds=FEW) as server:
        held = [server.connect() for _ in range(3)]
        for connection in held[:2]:
            connection.sendall(GET + b"\r\n")
            read_until(connection, b"ok")
        held[2].sendall(GET)  # half a request is none
        for connection in held[:1]:
            connection.sendall(GET + b"\r\n")
            read_until(connection, b"ok")
        assert [server.ask("GET", "/v1/models").status for _ in range(5)] == [200] * 5
        assert read_all(held[2]) == b"", "the third has waited for longest"
        held[0].sendall(GET + b"\r\n")
        assert status(read_until(held[0], b"ok")) == 200
        for connection in held:
            connection.close()


def test_a_thousand_idle_connections_lock_nobody_out(tmp_path: Path) -> None:
    control = str(tmp_path / "c.sock")
    with running_server(bounds=replace(PATIENT, connections=100), control=control) as server:
        held = [server.connect() for _ in range(1000)]
        assert server.ask("GET", "/livez").status == 200
        assert server.ask("GET", "/v1/models").status == 200
        for connection in held:
            connection.close()


def test_beyond_the_limit_only_probes_and_the_control_socket_are_served(tmp_path: Path) -> None:
    control = str(tmp_path / "c.sock")
    runtime = StubRuntime(script=("gate", *SAYS_HELLO))
    with running_server(runtime, FEW, control=control) as server:
        busy = [server.connect() for _ in range(3)]
        for connection in busy:
            connection.sendall(request("/v1/chat/completions", CHAT))
            assert runtime.reached.acquire(timeout=60)
        refused = server.raw(b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n")
        assert status(refused) == 503
        assert b"retry-after: 1" in refused
        assert server.ask("GET", "/livez").status == 200
        assert server.ask("GET", "/readyz").status == 200
        with socket.socket(socket.AF_UNIX) as operator:
            operator.settimeout(60)
            operator.connect(control)
            operator.sendall(b"GET /api/v1/status HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
            assert status(read_all(operator)) == 200
        server.open_gate("gate")
        for connection in busy:
            assert status(read_until(connection, b"Hello")) == 200
        assert server.ask("GET", "/v1/models").status == 200
        for connection in busy:
            connection.close()


def test_a_client_that_reads_nothing_is_disconnected_and_its_request_ended() -> None:
    flood = (SAYS_HELLO[0], *(SAYS_HELLO[1],) * 400_000)
    runtime = StubRuntime(script=flood)
    with running_server(runtime, replace(PATIENT, stall=0.3)) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.sendall(request("/v1/chat/completions", {**CHAT, "stream": True}))
        assert runtime.closed.acquire(timeout=60)
        assert server.nothing_runs()
