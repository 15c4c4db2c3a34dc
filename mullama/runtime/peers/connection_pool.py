"""The connections to one server. A request takes one that is unused, or opens another."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

from mullama.runtime.peers.connection import Connection, ConnectionClosed, ConnectionFailed, reason_of

_IDLE = 60.0
"""Seconds for which an unused connection stays open; the next look may come as much later."""
_MOST_UNUSED = 64
_EYEBALLS = 0.25
"""Seconds after which the next address of a name is tried, see RFC 8305."""


class NotConnected(Exception):
    """The server did not accept a connection in time."""


class ConnectionPool:
    """Sends requests to one server.

    url: its address, with a path that those of requests follow. headers: of every request. secure: for https.
    connect: seconds for a connection. silence: seconds for which the server may send nothing.
    Raises `UnicodeError` for a host that cannot be looked up.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], secure: ssl.SSLContext | None, *, connect: float, silence: float
    ) -> None:
        parts = urlsplit(url)
        self._host, self._secure = parts.hostname or "", secure
        self._port = parts.port or (443 if secure is not None else 80)
        self._path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        # urlsplit has read the name without the brackets of IPv6, and in lower case.
        name = f"[{self._host}]" if ":" in self._host else self._host.encode("idna").decode("ascii")
        self._common = _lines({"host": name if parts.port is None else f"{name}:{parts.port}", **headers})
        self._connect, self._silence = connect, silence
        self._unused: list[Connection] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """Close the unused connections, and each other one at the end of its request."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._unused:
            connection.close()
        self._unused.clear()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncGenerator[Connection, None]:
        """Send a request, and yield its connection when the head of the answer is read.

        The end of the block closes the connection unless the answer was read whole, which cancels the request there.
        Raises `NotConnected`, `ConnectionFailed` and `ServerSilent`.
        """
        length = {} if body is None else {"content-length": str(len(body))}
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._common}{_lines(headers)}{_lines(length)}\r\n"
        data = head.encode("ascii")
        connection = await self._asked(data, body or b"")
        try:
            yield connection
        finally:
            self._release(connection)

    async def _asked(self, head: bytes, body: bytes) -> Connection:
        """Return a connection with the head of the answer.

        A server may close an unused connection at the moment when a request is sent on it: the request is sent again.
        """
        while True:
            connection = self._take() or await self._open()
            try:
                await connection.ask(head, body, self._silence)
            except ConnectionClosed:
                connection.close()
                if not connection.used:
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                return connection

    def _take(self) -> Connection | None:
        while self._unused:
            connection = self._unused.pop()
            if connection.open:
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=self._secure, happy_eyeballs_delay=_EYEBALLS
                )
        except TimeoutError:
            raise NotConnected from None
        except OSError as error:
            raise ConnectionFailed(reason_of(error)) from error
        return connection

    def _release(self, connection: Connection) -> None:
        """Keep the connection for the next request, if it can have one."""
        if self._closed or not connection.reusable or len(self._unused) >= _MOST_UNUSED:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.unused_since = loop.time()
        self._unused.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_IDLE, self._sweep)

    def _sweep(self) -> None:
        """Close the connections that nothing has used for a while."""
        loop = asyncio.get_running_loop()
        limit = loop.time() - _IDLE
        kept = [one for one in self._unused if one.open and one.unused_since > limit]
        for connection in self._unused:
            if connection not in kept:
                connection.close()
        self._unused = kept
        self._sweeper = loop.call_later(_IDLE, self._sweep) if kept else None


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
