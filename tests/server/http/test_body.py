"""Bodies over real sockets: limits of size, time, compression and type."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mullama.errors import Invalid, Unavailable
from mullama.server.http.body import BodyBudget
from mullama.server.http.exchange import Rejection
from mullama.server.http.inflate import inflater
from mullama.struct import replace
from tests.server.server_fixture import (
    CHAT,
    PATIENT,
    SAYS_HELLO,
    RunningServer,
    StubRuntime,
    manifest,
    read_until,
    request,
    running_server,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 64 * 1024
SMALL = replace(PATIENT, body_pool=100_000)
HASTY = replace(PATIENT, body_idle=0.15, body_rate=100_000)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    runtime = StubRuntime(manifest=manifest(server={"limits": {"body": LIMIT}}))
    with running_server(runtime, SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[RunningServer]:
    """A server with short time limits for bodies."""
    with running_server(bounds=HASTY) as running:
        yield running


def chat_of(size: int) -> dict[str, Any]:
    """A chat whose JSON has exactly this many bytes."""
    empty = {**CHAT, "stream": False, "messages": [{"role": "user", "content": ""}]}
    bare = len(json.dumps(empty))
    return {**empty, "messages": [{"role": "user", "content": "x" * (size - bare)}]}


def test_a_body_may_have_exactly_the_limit(server: RunningServer) -> None:
    assert server.ask("POST", "/api/chat", chat_of(LIMIT)).status == 200
    assert server.ask("POST", "/api/chat", chat_of(LIMIT + 1)).status == 413


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_larger_body_is_413_in_the_shape_of_its_api(server: RunningServer, path: str) -> None:
    answer = server.ask("POST", path, chat_of(3 * LIMIT))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert "larger than 64 KiB" in str(answer.json["error"])


def test_an_announced_giant_is_refused_before_it_is_sent(server: RunningServer) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n"
    answer = server.raw(head + b"Expect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_a_giant_in_chunks_is_refused_at_the_limit(server: RunningServer) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with server.connect() as connection:
        connection.sendall(head + chunk * 6)
        answer = read_until(connection, b"larger than")
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_expects_100_continue_gets_it(server: RunningServer) -> None:
    body = json.dumps({**CHAT, "stream": False}).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with server.connect() as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b"HTTP/1.1 200" in read_until(connection, b"Hello")


def test_a_body_that_stops_is_408(hasty: RunningServer) -> None:
    answer = hasty.raw(request("/v1/messages", {"model": "tiny"})[:-3])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"type":"error"' in answer


def test_a_body_that_drips_is_408(hasty: RunningServer) -> None:
    """Each byte arrives in time, and all of them would take too long."""
    head, _, body = request("/api/chat", chat_of(2000)).partition(b"\r\n\r\n")
    done = threading.Event()
    with hasty.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")

        def drip() -> None:
            for byte in body:
                if done.wait(0.01):
                    return
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        assert read_until(connection, b"\r\n").startswith(b"HTTP/1.1 408 ")
        done.set()
        thread.join()


def test_a_missing_body_is_the_dialects_400(server: RunningServer) -> None:
    assert "missing request body" in server.ask("POST", "/api/chat").json["error"]
    assert server.ask("POST", "/v1/chat/completions").status == 400
    assert server.ask("POST", "/v1/messages", b"  ").status == 400


def test_bad_json_is_a_400_that_names_the_byte(server: RunningServer) -> None:
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/api/v1/plan"):
        answer = server.ask("POST", path, b'{"model": "tiny", "model": "x"}')
        assert answer.status == 400
        assert "'model' twice at byte 18" in str(answer.json["error"])


@pytest.mark.parametrize("value", [[], "text", 7, None, True])
def test_json_that_is_no_object_is_a_400(server: RunningServer, value: Any) -> None:
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/api/v1/plan"):
        assert server.ask("POST", path, json.dumps(value).encode()).status == 400


def test_the_pool_bounds_all_bodies_together(server: RunningServer) -> None:
    server.runtime.script = ("hold", *SAYS_HELLO)
    body = chat_of(60_000)
    with server.connect() as first:
        first.sendall(request("/api/chat", body))
        assert server.runtime.reached.acquire(timeout=60)
        full = server.ask("POST", "/api/chat", body)
        assert full.status == 503
        assert full.headers["retry-after"] == "1"
        server.open_gate("hold")
        read_until(first, b"Hello")
    server.runtime.script = SAYS_HELLO
    assert server.ask("POST", "/api/chat", body).status == 200


def form_of(size: int) -> tuple[bytes, dict[str, str]]:
    """A form for a streamed transcript of a file of so many bytes, and its headers."""
    head = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
        b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    return head + bytes(size) + b"\r\n--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


def test_the_files_of_all_forms_together_are_bounded() -> None:
    path = "/v1/audio/transcriptions"
    body, headers = form_of(6000)
    with running_server(bounds=replace(PATIENT, form_pool=10_000)) as server:
        server.runtime.script = ("hold", *SAYS_HELLO)
        with ThreadPoolExecutor(1) as one:
            first = one.submit(server.ask, "POST", path, body, headers)
            assert server.runtime.reached.acquire(timeout=60)
            full = server.ask("POST", path, body, headers)
            server.open_gate("hold")
            assert first.result(60).status == 200
        assert full.status == 503
        assert "all disk space reserved" in full.json["error"]["message"]
        server.runtime.script = SAYS_HELLO
        deadline = time.monotonic() + 60
        while (again := server.ask("POST", path, body, headers)).status == 503 and time.monotonic() < deadline:
            pass  # the client has the end of an answer before the server has closed its files
        assert again.status == 200


def test_the_pool_gets_reserved_bytes_back() -> None:
    pool = BodyBudget(10)
    with pool.share() as one, pool.share() as two:
        one.take(6)
        with pytest.raises(Unavailable):
            two.take(5)
        two.take(4)
    with pool.share() as all_of_it:
        all_of_it.take(10)


def test_gzip_is_unpacked(server: RunningServer) -> None:
    packed = gzip.compress(json.dumps({**CHAT, "stream": False}).encode())
    answer = server.ask("POST", "/api/chat", packed, {"content-encoding": "gzip"})
    assert answer.json["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    ("packed", "status"),
    [
        (gzip.compress(b" " * 10_000_000), 413),
        (gzip.compress(b"{}")[:-4], 400),
        (gzip.compress(b"{}") + b"more", 400),
        (gzip.compress(b"{}") * 2, 400),
        (b"{}", 400),
    ],
    ids=["bomb", "cut", "rest", "two members", "not gzip"],
)
def test_odd_gzip_is_refused(server: RunningServer, packed: bytes, status: int) -> None:
    answer = server.ask("POST", "/v1/messages", packed, {"content-encoding": "gzip"})
    assert answer.status == status


def test_zstd_is_unpacked(server: RunningServer) -> None:
    packed = zstd.compress(json.dumps({**CHAT, "stream": False}).encode())
    answer = server.ask("POST", "/api/chat", packed, {"content-encoding": "zstd"})
    assert answer.json["message"]["content"] == "Hello"


def wide() -> bytes:
    """A valid body in a frame with a window of 128 MiB."""
    options = {int(zstd.CompressionParameter.window_log): 27, int(zstd.CompressionParameter.content_size_flag): 0}
    packer = zstd.ZstdCompressor(options=options)
    body = json.dumps({**CHAT, "stream": False, "max_tokens": 5}).encode()
    return packer.compress(body + b" " * 100_000) + packer.flush()


@pytest.mark.parametrize(
    ("packed", "status"),
    [
        (zstd.compress(b" " * 10_000_000), 413),
        (zstd.compress(b"{}")[:-4], 400),
        (zstd.compress(b"{}") + b"more", 400),
        (wide(), 400),
        (b"{}", 400),
    ],
    ids=["bomb", "cut", "rest", "window", "not zstd"],
)
def test_odd_zstd_is_refused(server: RunningServer, packed: bytes, status: int) -> None:
    answer = server.ask("POST", "/v1/messages", packed, {"content-encoding": "zstd"})
    assert answer.status == status


def test_an_unknown_encoding_is_415_and_names_the_known_ones(server: RunningServer) -> None:
    answer = server.ask("POST", "/v1/messages", b"x", {"content-encoding": "br"})
    assert answer.status == 415
    assert "gzip" in str(answer.json["error"])


def test_the_inflater_gives_no_byte_beyond_the_limit() -> None:
    for cut in (1, 7, 100):
        packed = zlib.compress(b"y" * 1000, wbits=31)
        unpack = inflater("gzip", 1000)
        assert b"".join(unpack.feed(packed[i : i + cut]) for i in range(0, len(packed), cut)) == b"y" * 1000
    tight = inflater("gzip", 999)
    with pytest.raises(Rejection):
        tight.feed(zlib.compress(b"y" * 1000, wbits=31))


def test_an_empty_body_needs_no_unpacking() -> None:
    assert inflater("gzip", 10).end() == b""
    half = inflater("gzip", 10)
    half.feed(gzip.compress(b"x")[:5])
    with pytest.raises(Invalid):
        half.end()


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
def test_a_page_may_only_send_json(server: RunningServer, media: str, status: int) -> None:
    headers = {"origin": "http://localhost:3000", **({"content-type": media} if media else {})}
    assert server.ask("POST", "/api/chat", {**CHAT, "stream": False}, headers).status == status
