"""One connection of HTTP/1.1 to a server, which answers one request at a time.

A gateway pays here for each request and each piece of an answer. The event loop calls this protocol, httptools parses,
and one timer watches a whole request: no piece has a task, a lock or a timer of its own.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, cast

import httptools

_LARGEST_HEAD = 128 * 1024
_MOST_HELD = 256 * 1024
"""Bytes of an answer that wait for their reader before the server has to wait."""
_ONE_WRITE = 64 * 1024


class ConnectionFailed(Exception):
    """A connection that cannot be made, that ended early, or whose server does not speak HTTP/1.1. Has the reason."""


class ConnectionClosed(ConnectionFailed):
    """The server closed the connection before the first byte of an answer."""


class ServerSilent(Exception):
    """The server sent nothing for as long as it may."""


class Connection(asyncio.Protocol):
    """`ask` sends a request, `read` returns its answer piece by piece, `close` ends both."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Of the answer, their names in lower case. The last one of a name counts."""
        self.unused_since = 0.0
        self.used = False
        """True after the first complete answer."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence = self._heard = 0.0
        self._unsent = 0
        self._received = 0
        self._headed = self._keeps = self._further = False
        self._complete = True
        """False from a request to the end of its answer."""

    @property
    def open(self) -> bool:
        """True while a request can be sent."""
        return self._transport is not None and not self._transport.is_closing() and self._complete

    @property
    def reusable(self) -> bool:
        """True after an answer that is complete, and whose server has read the request and keeps the connection."""
        if not (self.open and self._keeps) or self._further:
            return False
        return cast(asyncio.Transport, self._transport).get_write_buffer_size() == 0

    def close(self) -> None:
        """Close the connection at once. A server notices that the request in progress has no reader."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, head: bytes, body: bytes, silence: float) -> None:
        """Send a request, and return when the head of its answer is read.

        head: the request line and the headers, with their end. silence: seconds for which the server may send nothing.
        Raises `ConnectionFailed`, and `ServerSilent` after the silence; so does `read`.
        """
        transport = cast(asyncio.Transport, self._transport)
        self._parser = httptools.HttpResponseParser(self)
        self._pieces.clear()
        self.headers = {}
        self.status = self._held = self._received = 0
        self._headed = self._keeps = self._complete = False
        if len(body) <= _ONE_WRITE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        self._silence, self._heard = silence, self._loop.time()
        self._unsent = transport.get_write_buffer_size()
        if self._timer is None:
            self._timer = self._loop.call_later(silence, self._look)
        while not self._headed:
            if self._failure is not None:
                raise self._failure
            await self._arrival()

    async def read(self) -> bytes:
        """Return what arrived of the answer's body since the last call, waiting for some; b"" at its end."""
        while not self._pieces:
            if self._complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._arrival()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            cast(asyncio.Transport, self._transport).resume_reading()
        return data

    async def _arrival(self) -> None:
        """Wait until something arrives, or the connection fails. The silence begins now: a reader may be slow."""
        self._heard = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """Fail if the server was silent for too long; else look again when it may have been."""
        self._timer = None
        if self._complete or self._failure is not None:
            return
        now, unsent = self._loop.time(), cast(asyncio.Transport, self._transport).get_write_buffer_size()
        if self._waiter is None or unsent < self._unsent:  # the reader is busy, or the server reads the request
            self._heard, self._unsent = now, unsent
        if (rest := self._heard + self._silence - now) > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self._fail(ServerSilent())

    def _fail(self, failure: Exception) -> None:
        if self._failure is None:
            self._failure = failure
        self.close()
        self._wake()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._headed and not self._complete and exc is None and self._until_closed():
            self._complete = True
        reason = reason_of(exc) if exc is not None else "it closed the connection"
        self._fail((ConnectionFailed if self._received else ConnectionClosed)(reason))

    def data_received(self, data: bytes) -> None:
        if self._complete:  # nothing was asked
            self.close()
            return
        self._heard = self._loop.time()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._further = True
            if not self._complete:
                self._fail(ConnectionFailed(f"it sent no answer of HTTP/1.1: {error}"))
            return
        if not self._headed and self._received > _LARGEST_HEAD:
            self._fail(ConnectionFailed(f"it sent headers of more than {_LARGEST_HEAD} bytes"))
            return
        if self._held > _MOST_HELD and not self._paused:
            self._paused = True
            cast(asyncio.Transport, self._transport).pause_reading()
        if self._headed:
            self._wake()

    # Called by the parser

    def on_message_begin(self) -> None:
        if self._complete:  # an answer to no request
            self._further = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # else it is a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # the answer follows
            self.headers = {}
            return
        self.status, self._headed, self._keeps = status, True, self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self._further:
            self._pieces.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = self.used = True
            self._wake()

    def _until_closed(self) -> bool:
        """Return True for an answer whose end is that of its connection."""
        return "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")


def reason_of(error: Exception) -> str:
    """Return the reason of a failed connection in the words of the system."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        return os.strerror(error.errno).lower() if error.errno > 0 else str(error.strerror).lower()
    return str(error) or type(error).__name__
