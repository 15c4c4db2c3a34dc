"""Disconnects and stops of the server: requests in progress end at once, or with their dialect's error."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from typing import Any

import pytest

from mullama.chat import types
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

HELD_BEFORE = ("gate", *SAYS_HELLO)
HELD_WITHIN = (*SAYS_HELLO[:2], "gate", *SAYS_HELLO[2:])
STREAMED: dict[str, dict[str, Any]] = {
    "/api/chat": {**CHAT, "stream": True},
    "/v1/chat/completions": {**CHAT, "stream": True},
    "/v1/messages": {**CHAT, "stream": True, "max_tokens": 9},
}


ALONE = replace(PATIENT, ping=3600, stall=3600)  # nothing but its end tells the server that a client is gone


@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("script", [HELD_BEFORE, HELD_WITHIN], ids=["queued", "streaming"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnect_ends_the_completion_at_once(script: Any, stream: bool, abruptly: bool) -> None:
    runtime = StubRuntime(script=script)
    with running_server(runtime, ALONE) as server:
        connection = server.connect()
        connection.sendall(request("/v1/chat/completions", {**CHAT, "stream": stream}))
        assert runtime.reached.acquire(timeout=60)
        if abruptly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        assert runtime.closed.acquire(timeout=60)
        assert server.nothing_runs()


def test_a_disconnect_is_logged_as_499(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mullama.requests")
    runtime = StubRuntime(script=HELD_BEFORE)
    with running_server(runtime) as server:
        with server.connect() as connection:
            connection.sendall(request("/api/chat", CHAT))
            assert runtime.reached.acquire(timeout=60)
        assert runtime.closed.acquire(timeout=60)
        assert server.nothing_runs()
        server.ask("GET", "/livez")
    assert [r.fields["status"] for r in caplog.records if r.name == "mullama.requests"] == [499]  # type: ignore[attr-defined]


def test_a_disconnect_within_a_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server:
        with server.connect() as connection:
            connection.sendall(request("/api/chat", CHAT)[:-5])
        assert server.ask("GET", "/livez").status == 200
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "WARNING")]


def test_many_disconnects_leave_no_request_behind() -> None:
    runtime = StubRuntime(script=HELD_WITHIN)
    with running_server(runtime) as server:
        for _ in range(200):
            with server.connect() as connection:
                connection.sendall(request("/v1/chat/completions", {**CHAT, "stream": True}))
                read_until(connection, b"Hel")
        for _ in range(200):
            assert runtime.closed.acquire(timeout=60)
        assert server.nothing_runs()
        deadline = time.monotonic() + 60
        while server.wait(_tasks()) >= 10 and time.monotonic() < deadline:
            pass  # what is cancelled ends a turn later
        assert server.wait(_tasks()) < 10


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def test_a_disconnect_ends_the_stream_of_an_apply() -> None:
    runtime = StubRuntime(lines=({"event": "phase", "phase": "fetch"}, "gate", {"event": "result"}))
    with running_server(runtime) as server:
        with server.connect() as connection:
            connection.sendall(request("/api/v1/stack", {"manifest": {}}, "PUT"))
            read_until(connection, b"fetch")
        assert runtime.closed.acquire(timeout=60)


class Stop(threading.Thread):
    """Calls `stop` of the server in a thread."""

    def __init__(self, server: RunningServer, drain: float) -> None:
        super().__init__()
        self._server, self._drain = server, drain
        self.seconds = 0.0
        self.start()

    def run(self) -> None:
        began = time.monotonic()
        self._server.wait(self._server.http.stop(self._drain))
        self.seconds = time.monotonic() - began


@pytest.mark.parametrize("path", STREAMED)
def test_a_drain_lets_streams_end(path: str) -> None:
    runtime = StubRuntime(script=HELD_WITHIN)
    with running_server(runtime) as server, server.connect() as connection, server.connect() as idle:
        connection.sendall(request(path, STREAMED[path]))
        read_until(connection, b"Hel")
        stop = Stop(server, 80)
        assert idle.recv(1) == b""
        server.open_gate("gate")
        rest = read_all(connection)
        stop.join()
        assert b"lo" in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert b"error" not in rest
        assert stop.seconds < 60


def test_a_drain_does_not_wait_for_followers_that_have_no_end() -> None:
    path = "/v1/messages"
    runtime = StubRuntime(script=HELD_WITHIN)
    with running_server(runtime) as server, server.connect() as page, server.connect() as client:
        page.sendall(request("/api/v1/live", None, "GET"))
        read_until(page, b"data:")
        client.sendall(request(path, STREAMED[path]))
        read_until(client, b"Hel")
        stop = Stop(server, 80)
        server.open_gate("gate")
        assert b"error" not in read_all(client)
        assert read_all(page).endswith(b"0\r\n\r\n")
        stop.join()
        assert stop.seconds < 60


@pytest.mark.parametrize("path", STREAMED)
def test_after_the_deadline_a_stream_ends_with_its_dialects_error(path: str) -> None:
    runtime = StubRuntime(script=HELD_WITHIN)
    with running_server(runtime) as server, server.connect() as connection:
        connection.sendall(request(path, STREAMED[path]))
        read_until(connection, b"Hel")
        stop = Stop(server, 0.05)
        rest = read_all(connection)
        stop.join()
    assert b"error" in rest
    assert b"stopping" in rest
    assert rest.endswith(b"0\r\n\r\n")
    assert runtime.closed.acquire(timeout=60)


def test_a_stop_does_not_lose_an_answer_in_the_send_buffer() -> None:
    """The handler has ended, and its bytes wait until the client reads them."""
    long = types.TextDelta(text="x" * 20_000_000)
    runtime = StubRuntime(script=(SAYS_HELLO[0], long, *SAYS_HELLO[3:]))
    with running_server(runtime, replace(PATIENT, flush=60)) as server, server.connect() as connection:
        connection.sendall(request("/api/chat", {**CHAT, "stream": False}))
        read_until(connection, b"xxx")
        stop = Stop(server, 5)
        rest = read_all(connection)
        stop.join()
    assert len(rest) > 19_000_000
    assert rest.endswith(b"}")


def test_after_the_deadline_a_waiting_request_gets_503() -> None:
    runtime = StubRuntime(script=HELD_BEFORE)
    with running_server(runtime) as server, server.connect() as connection:
        connection.sendall(request("/v1/messages", STREAMED["/v1/messages"]))
        assert runtime.reached.acquire(timeout=60)
        stop = Stop(server, 0.05)
        answer = read_all(connection)
        stop.join()
    assert answer.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 529 "))
    assert b"retry-after: 5" in answer
    assert b"connection: close" in answer


def test_a_stopped_server_takes_no_connection() -> None:
    with running_server() as server:
        server.wait(server.http.stop(0))
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        server.wait(server.http.stop(0))


def test_a_handler_that_does_not_end_is_cancelled_in_the_end() -> None:
    """A service that ignores its cancellation cannot delay a stop for ever."""

    class Stubborn(StubRuntime):
        async def answer(self, operation: Any, caller: Any) -> Any:
            self.reached.release()
            for _ in range(2):
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue

    runtime = Stubborn()
    with running_server(runtime, replace(PATIENT, flush=0.1)) as server, server.connect() as connection:
        connection.sendall(request("/api/chat", {**CHAT, "stream": False}))
        assert runtime.reached.acquire(timeout=60)
        stop = Stop(server, 0.05)
        stop.join()
        assert stop.seconds < 60
        read_all(connection)


def test_many_streams_at_once_all_end() -> None:
    runtime = StubRuntime(script=HELD_WITHIN)
    with running_server(runtime) as server:
        connections = [server.connect() for _ in range(100)]
        for connection in connections:
            connection.sendall(request("/v1/chat/completions", {**CHAT, "stream": True}))
        for connection in connections:
            read_until(connection, b"Hel")
        server.open_gate("gate")
        for connection in connections:
            assert b"[DONE]" in read_until(connection, b"0\r\n\r\n")
            connection.close()
        assert json.loads(server.ask("GET", "/livez").body) == {"status": "ok"}
