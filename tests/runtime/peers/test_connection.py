"""Connections to a server that sends given bytes: forms of answers, early ends, reuse, silence and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from mullama.runtime.peers.connection import ConnectionFailed, ServerSilent
from mullama.runtime.peers.connection_pool import ConnectionPool

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads one request after another from each connection, and gives each to `answer`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        """Set when a client closed its connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
                self.requests.append(head + await reader.readexactly(length))
                await self.answer(reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def served(answer: Answer, silence: float = 60.0) -> AsyncIterator[tuple[Server, ConnectionPool]]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pool = ConnectionPool(f"http://127.0.0.1:{port}/base", {"accept": "x"}, None, connect=60.0, silence=silence)
    try:
        yield server, pool
    finally:
        pool.close()
        listening.close()


def sends(data: bytes, *, end: bool = False) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if end:
            writer.close()

    return answer


async def whole(pool: ConnectionPool, body: bytes | None = b"{}") -> tuple[int, bytes]:
    found = b""
    async with pool.request("GET" if body is None else "POST", "/v1/x", {}, body) as connection:
        while piece := await connection.read():
            found += piece
        return connection.status, found


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (OK + b"content-length: 5\r\n\r\nhello", 200, b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx: trailer\r\n\r\n", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n", 429, b""),
        (EARLY + OK + b"content-length: 1\r\n\r\na", 200, b"a"),
    ],
)  # fmt: skip
async def test_an_answer_is_read_whole_and_its_connection_is_used_again(data: bytes, status: int, body: bytes) -> None:
    async with served(sends(data)) as (server, pool):
        for _ in range(3):
            assert await whole(pool) == (status, body)
        assert server.connections == 1
        assert len(server.requests) == 3


@pytest.mark.parametrize("data", [OK + b"\r\nhello", OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello"])
async def test_an_answer_may_end_with_its_connection(data: bytes) -> None:
    async with served(sends(data, end=True)) as (server, pool):
        assert [await whole(pool) for _ in range(2)] == [(200, b"hello")] * 2
        assert server.connections == 2


async def test_answers_arrive_as_they_are_sent_byte_by_byte() -> None:
    data = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    async with served(answer) as (_, pool):
        assert await whole(pool) == (200, b"abcde")


async def test_a_request_has_the_form_of_the_protocol() -> None:
    async with served(sends(OK + b"content-length: 0\r\n\r\n")) as (server, pool):
        async with pool.request("POST", "/v1/x", {"hops": "1"}, b"body") as connection:
            assert await connection.read() == b""
        port = server.requests[0].partition(b"host: 127.0.0.1:")[2].partition(b"\r\n")[0]
        assert server.requests == [
            b"POST /base/v1/x HTTP/1.1\r\nhost: 127.0.0.1:" + port + b"\r\naccept: x\r\nhops: 1\r\n"
            b"content-length: 4\r\n\r\nbody"
        ]
        assert port.isdigit()
        await whole(pool, None)
        assert b"content-length" not in server.requests[1]


async def test_a_long_request_and_a_long_answer_are_complete() -> None:
    body = bytes(range(256)) * 16_384
    async with served(sends(OK + b"content-length: %d\r\n\r\n" % len(body) + body)) as (server, pool):
        assert await whole(pool, body) == (200, body)
        assert server.requests[0].endswith(body)
        assert await whole(pool) == (200, body)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OK + b"content-length: 9\r\n\r\nhello", "it closed the connection"),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe", "it closed the connection"),
        (b"", "it closed the connection"),
        (b"SSH-2.0-x\r\n", "it sent no answer of HTTP/1.1"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "it sent no answer of HTTP/1.1"),
        (OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na", "it sent no answer of HTTP/1.1"),
        (OK + b"x: " + b"y" * 200_000, "it sent headers of more than 131072 bytes"),
    ],
)
async def test_an_answer_that_ends_early_or_is_none_has_a_reason(data: bytes, reason: str) -> None:
    async with served(sends(data, end=True)) as (server, pool):
        with pytest.raises(ConnectionFailed, match=reason):
            await whole(pool)
        assert server.connections == 1


async def test_a_server_that_closed_an_unused_connection_gets_the_request_on_another() -> None:
    """The client sends before it notices the end: here the server ends the connection when the request arrives."""
    answers = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        if answers == 2:
            writer.close()
            return
        writer.write(OK + b"content-length: 1\r\n\r\na")

    async with served(answer) as (server, pool):
        assert await whole(pool) == (200, b"a")
        assert await whole(pool) == (200, b"a")
        assert (server.connections, answers) == (2, 3)


async def test_bytes_after_an_answer_are_the_answer_of_no_request() -> None:
    async with served(sends(OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 1\r\n\r\nb")) as (server, pool):
        assert [await whole(pool) for _ in range(2)] == [(200, b"a")] * 2
        assert server.connections == 2


async def test_a_reader_that_leaves_ends_the_request_at_the_server() -> None:
    async with served(sends(OK + b"content-length: 100\r\n\r\nhello")) as (server, pool):
        async with pool.request("POST", "/", {}, b"") as connection:
            assert await connection.read() == b"hello"
        await server.left.wait()


async def test_a_cancelled_wait_ends_the_request_at_the_server() -> None:
    asked = asyncio.Event()

    async def answer(*_: object) -> None:
        asked.set()

    async with served(answer) as (server, pool):
        waiting = asyncio.create_task(whole(pool))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.left.wait()


@pytest.mark.parametrize("data", [b"", OK, OK + b"content-length: 9\r\n\r\nhello"])
async def test_a_server_that_sends_nothing_for_too_long_is_left(data: bytes) -> None:
    async with served(sends(data), silence=0.05) as (server, pool):
        with pytest.raises(ServerSilent):
            await whole(pool)
        await server.left.wait()


async def test_a_reader_may_take_longer_than_the_server_may_be_silent() -> None:
    sent = sends(OK + b"content-length: 5\r\n\r\nhello")
    async with served(sent, silence=1.0) as (_, pool), pool.request("POST", "/", {}, b"") as connection:
        await asyncio.sleep(1.5)  # the timer looks meanwhile
        assert await connection.read() == b"hello"


async def test_a_pool_that_is_closed_keeps_no_connection() -> None:
    async with served(sends(OK + b"content-length: 1\r\n\r\na")) as (server, pool):
        async with pool.request("POST", "/", {}, b"") as connection:
            pool.close()
            assert await connection.read() == b"a"
        await server.left.wait()
        assert not connection.open


async def test_a_server_that_is_not_there_is_named_in_the_words_of_the_system() -> None:
    async with served(sends(b"")) as (_, pool):
        pass
    with pytest.raises(ConnectionFailed, match="connection refused"):
        await whole(pool)


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(UnicodeError):
        ConnectionPool("http://a..b", {}, None, connect=1.0, silence=1.0)
