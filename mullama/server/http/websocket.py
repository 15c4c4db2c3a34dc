"""WebSockets: the handshake of a request that passed all checks, and whole messages of text in both directions.

Frames are read and written by the sans-I/O half of `websockets`. Messages are never compressed: a few bytes of a client
could otherwise become megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import InvalidState
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol

from mullama.errors import Invalid, Unavailable
from mullama.server.http.body import BodyShare
from mullama.server.http.exchange import Exchange, Rejection
from mullama.server.http.limits import Bounds
from mullama.server.http.protocol import RawConnection

_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)  # the library notes every connection

GOING_AWAY, BAD_DATA, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1001, 1007, 1008, 1009, 1011, 1013
"""Codes of a close: RFC 6455 section 7.4.1, and 1013 of the registry of IANA."""
_REASON = 123  # bytes of a reason in a close frame, at most
_UNREAD = 1024 * 1024  # bytes of messages that wait for the session, before no more are read


class SocketClosed(Exception):
    """The connection is closed, so no message follows."""


class Leaving(Exception):
    """The server stops: the session is to end when it has nothing to do."""


class WebSocket:
    """One connection after its handshake.

    share: of the memory for bodies, for the messages and parts of them that the session has not read. The socket
        releases it with the end of the connection.
    """

    def __init__(self, protocol: Protocol, share: BodyShare, bounds: Bounds) -> None:
        self._protocol = protocol
        self._share = share
        self._bounds = bounds
        self._wire: RawConnection | None = None
        self._parts: list[bytes] = []  # of a message whose last frame is missing
        self._text = True
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._closing = False  # the server has sent a close
        self._leaving = False
        self._alive = True  # the client sent something since the last ping
        self._pinger: asyncio.Task[None] | None = None
        self.bytes_in = 0
        self.bytes_out = 0

    def open(self, connect: Callable[[bytes, WebSocket], RawConnection], head: bytes) -> None:
        """Send the response of the handshake."""
        self._wire = connect(head, self)
        self._pinger = asyncio.create_task(self._ping())

    # Called by the connection

    def feed(self, data: bytes) -> None:
        """Process bytes of the client."""
        self.bytes_in += len(data)
        self._alive = True
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            self._frame(frame)
        self._hold()
        self._flush()
        if self._protocol.close_rcvd is not None or (self._protocol.close_expected() and not self._closing):
            self._end()

    def lost(self) -> None:
        """Note that the connection is closed."""
        self._closed = True
        self._share.hold(0)
        self._arrived.set()
        if self._pinger is not None:
            self._pinger.cancel()

    def leave(self) -> None:
        """Note that the server stops."""
        self._leaving = True
        self._arrived.set()

    def _hold(self) -> None:
        """Reserve memory for what arrived and is not read: messages, parts of one, and a frame without its end."""
        if self._closed:
            return
        arrived = self._unread + sum(map(len, self._parts)) + len(self._protocol.reader.buffer)
        try:
            self._share.hold(arrived)
        except Unavailable as error:
            self._parts, self._text = [], True
            self._protocol.fail(TRY_LATER, error.message.encode()[:_REASON].decode(errors="ignore"))

    def _frame(self, frame: Any) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                self._text, self._parts = frame.opcode is Opcode.TEXT, [bytes(frame.data)]
            case Opcode.CONT:
                self._parts.append(bytes(frame.data))
            case _:  # pings and closes are answered by the protocol
                return
        if not frame.fin:
            return
        message, self._parts = b"".join(self._parts), []
        if not self._text:
            self._protocol.fail(1003, "messages are JSON in text frames")
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            self._protocol.fail(BAD_DATA, "a message is no UTF-8")
            return
        self._messages.append(message)
        self._unread += len(message)
        self._arrived.set()
        if self._unread > _UNREAD and self._wire is not None:
            self._wire.pause(True)

    # Called by the session

    async def receive(self) -> bytes:
        """Return the next message. Raises `SocketClosed`, or `Leaving` once after the server began to stop."""
        while not self._messages:
            if self._closed:
                raise SocketClosed
            if self._leaving:
                self._leaving = False
                raise Leaving
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._unread -= len(message)
        self._hold()
        if self._unread <= _UNREAD and self._wire is not None and not self._closed:
            self._wire.pause(False)
        return message

    async def send(self, message: bytes) -> None:
        """Send one message of text; returns when the send buffer has room. A closed connection takes none."""
        if self._closed or self._wire is None or self._protocol.state is not OPEN:
            return
        self._protocol.send_text(message)
        self._flush()
        await self._wire.drain()

    def close(self, code: int, reason: str) -> None:
        """Send a close with a reason, and close the connection when the client answered it, or soon."""
        if self._closed or self._wire is None:
            return
        text = reason.encode()[:_REASON].decode(errors="ignore")
        with contextlib.suppress(InvalidState):  # the client closed first
            self._protocol.send_close(code, text)
        self._flush()
        self._closing = True
        # The client has time to answer: an earlier end could lose the reason.
        asyncio.get_running_loop().call_later(self._bounds.linger, self._end)

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        while not self._closed:
            self._arrived.clear()
            self._messages.clear()
            self._unread = 0
            await self._arrived.wait()

    def _flush(self) -> None:
        if self._wire is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self.bytes_out += len(data)
                self._wire.write(data)

    def _end(self) -> None:
        if self._wire is not None and not self._closed:
            self._wire.close(answered=self._protocol.close_rcvd is not None)

    async def _ping(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._bounds.session_ping)
            if not self._alive:
                if self._wire is not None:
                    self._wire.abort()
                return
            self._alive = False
            if self._protocol.state is OPEN:
                self._protocol.send_ping(b"")
                self._flush()


def accept(exchange: Exchange, subprotocols: tuple[str, ...], share: BodyShare, bounds: Bounds) -> WebSocket:
    """Answer the handshake of a request. Raises `Rejection` for a request that is none.

    subprotocols: those of the server. The first one that the client offers is chosen; a client that offers none, or
    others, gets none.
    share: of the memory for bodies, for messages that arrive.
    """
    connect = (exchange.scope.get("state") or {}).get("upgrade")
    headers = Headers()
    for name, value in exchange.scope["headers"]:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    protocol = ServerProtocol(
        select_subprotocol=lambda _, offered: next((one for one in offered if one in subprotocols), None),
        logger=_log,
    )
    response = protocol.accept(Request(path=exchange.path, headers=headers))
    if connect is None or response.status_code != 101:
        version = headers.get("Sec-WebSocket-Version", "13")
        raise Rejection(
            426,
            Invalid(
                f"{exchange.path} is a WebSocket, and the request is no handshake of one",
                hint="connect with a WebSocket client" if version == "13" else "use version 13 of the protocol",
            ),
            headers={"upgrade": "websocket", "sec-websocket-version": "13"},
            close=True,
        )
    for name, value in {**exchange.extra, "x-request-id": exchange.request_id}.items():
        response.headers[name] = value
    # The parser of the handshake has read nothing: another one, for frames, begins after it.
    socket = WebSocket(Protocol(SERVER, state=OPEN, max_size=bounds.message, logger=_log), share, bounds)
    socket.open(connect, response.serialize())
    exchange.upgraded()
    return socket
