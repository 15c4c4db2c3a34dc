"""Many clients for a long time: streams, half-open connections, slow readers, disconnects."""

from __future__ import annotations

import socket
import threading
import time

import psutil
import pytest

from mullama.server.http.limits import Bounds
from tests.server.server_fixture import CHAT, SAYS_HELLO, StubRuntime, read_all, read_until, request, running_server

pytestmark = pytest.mark.soak

STREAM = request("/v1/chat/completions", {**CHAT, "stream": True})
HELD = (*SAYS_HELLO[:2], "gate", *SAYS_HELLO[2:])
ROOMY = Bounds(connections=4096, flush=0.5)


def descriptors() -> int:
    return psutil.Process().num_fds()


def test_a_thousand_streams_all_end_and_leave_no_descriptor() -> None:
    with running_server(StubRuntime(script=HELD), ROOMY) as server:
        server.ask("GET", "/livez")
        before = descriptors()
        connections = [server.connect() for _ in range(1000)]
        for connection in connections:
            connection.sendall(STREAM)
        for connection in connections:
            read_until(connection, b"Hel")
        server.open_gate("gate")
        for connection in connections:
            assert b"[DONE]" in read_until(connection, b"0\r\n\r\n")
            connection.close()
        server.ask("GET", "/livez")
        assert descriptors() <= before + 2


def test_a_thousand_half_open_connections_are_closed_and_disturb_no_client() -> None:
    halves = (b"", b"GET /", b"GET / HTTP/1.1\r\nX: y", STREAM[:-3])
    with running_server(bounds=Bounds(connections=4096, header_time=3, body_idle=3, flush=0.5)) as server:
        connections = [server.connect() for _ in range(1000)]
        for n, connection in enumerate(connections):
            connection.sendall(halves[n % 4])
        times = []
        for _ in range(100):
            began = time.monotonic()
            assert server.ask("GET", "/healthz").status == 200
            times.append(time.monotonic() - began)
        assert sorted(times)[-2] < 0.25
        for connection in connections:
            read_all(connection)
            connection.close()


def test_five_thousand_disconnects_leave_nothing_behind() -> None:
    runtime = StubRuntime(script=HELD)
    with running_server(runtime, ROOMY) as server:
        before = descriptors()
        for _ in range(5000):
            with server.connect() as connection:
                connection.sendall(STREAM)
                read_until(connection, b"Hel")
        for _ in range(5000):
            assert runtime.closed.acquire(timeout=10)
        assert server.ask("GET", "/livez").status == 200
        assert len(server.app.inflight) == 0
        assert descriptors() <= before + 3


def test_slow_readers_cost_little_memory_and_no_others_time() -> None:
    flood = (SAYS_HELLO[0], *(SAYS_HELLO[1],) * 100_000, *SAYS_HELLO[3:])
    runtime = StubRuntime(script=flood)
    process = psutil.Process()
    with running_server(runtime, Bounds(connections=4096, stall=600, flush=0.5)) as server:
        server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True})
        before = process.memory_info().rss
        slow = []
        for _ in range(100):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server.address)
            connection.sendall(STREAM)
            slow.append(connection)
        for _ in range(20):
            began = time.monotonic()
            assert server.ask("GET", "/healthz").status == 200
            assert time.monotonic() - began < 1
        assert (process.memory_info().rss - before) / 100 < 1024**2
        for connection in slow:
            connection.close()
        for _ in slow:
            assert runtime.closed.acquire(timeout=20)


def test_a_server_changes_its_listeners_under_load_and_loses_nothing() -> None:
    """Clients of the listener that stays do not notice changes of the others."""
    with running_server(bounds=ROOMY) as server:
        lost: list[str] = []
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                answer = server.ask("POST", "/v1/chat/completions", {**CHAT, "stream": True})
                if not answer.body.endswith(b"data: [DONE]\n\n"):
                    lost.append(repr(answer))

        workers = [threading.Thread(target=load) for _ in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(200):
            server.wait(server.http.listen_on(["127.0.0.1:0", "127.0.0.2:0"]))
            server.wait(server.http.listen_on(["127.0.0.1:0"]))
        done.set()
        for worker in workers:
            worker.join()
        assert lost == []
