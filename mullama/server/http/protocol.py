"""HTTP/1.1 on one connection: uvicorn's protocol with deadlines and bounds; ambiguous requests are refused.

uvicorn has no seam for this, so the subclass relies on how `HttpToolsProtocol` 0.54 works; tests/server/http holds it:

- The parser calls on_message_begin, on_url, on_header, on_headers_complete, on_body and on_message_complete in this
  order, and an exception from a callback reaches `data_received` as an `HttpParserError`.
- `on_message_begin` makes a new `scope`, `headers` and `url`; `on_headers_complete` fills the scope and starts one task
  for its `RequestResponseCycle`. Our overrides call them, except where a request has no valid headers (`_answer`).
- The cycle reads the body from `cycle.body` and waits for `cycle.message_event`; `more_body` and `keep_alive` may be
  changed from outside while it runs.
- The cycle writes the status line and headers as one write of their own, and closes through `transport.close()`.
- `connections` and `tasks` of the `ServerState` hold the protocols and the tasks of all requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from mullama.errors import Invalid, MullamaError, TimedOut, TooLarge, Unavailable
from mullama.server.http.connection_cap import ConnectionCap
from mullama.server.http.exchange import Rejection
from mullama.server.http.limits import Bounds
from mullama.server.http.uvicorn_parts import Config, HttpToolsProtocol, RequestResponseCycle, ServerState

_ALWAYS_SERVED = (b"/livez", b"/readyz")  # an orchestrator restarts a server that does not answer them
_MALFORMED = Invalid("the request is not well-formed HTTP", hint="the connection is closed")


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A request that breaks a rule reaches the application with a `refusal` in its state.

    The application can then send the error in the format of the API that was called. The connection is closed after it.
    cap: counts the connection; None for one that is always served.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        bounds: Bounds,
        cap: ConnectionCap[BoundedProtocol] | None,
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(cast(Any, config), state, app_state)
        self._bounds = bounds
        self._cap = cap
        self._surplus = False  # opened beyond the bound: its requests get a 503 until others are closed
        self._on_lost = on_lost
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_headers = False  # between the first byte of a request and the end of its headers
        self._incomplete = False  # between the first byte of a request and the end of its body
        self._discarding = False  # input is read and ignored
        self._unparsed = 0  # bytes received since the last callback of the parser
        self._piece_size = 0  # bytes of the piece that is being parsed
        self._header_bytes = self._header_count = 0  # of one request, with its trailers
        self._rejection: Rejection | None = None
        self._pipelined = False
        self._body_after_upgrade = False
        self._socket: RawReceiver | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, LingeringTransport(transport, self)))
        if self._cap is not None:
            if (longest_idle := self._cap.opened(self)) is not None:
                longest_idle.transport.abort()
            self._surplus = self._cap.exceeded
            if self._cap.far_exceeded:
                transport.abort()
        self._arm("headers", self._bounds.header_time, self._headers_timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._cap is not None:
            self._cap.closed(self)
        if self._socket is not None:
            self._socket.lost()
        super().connection_lost(exc)
        self._on_lost()

    def leave(self) -> None:
        """Note that the server stops: end a request that changed the protocol."""
        if self._socket is not None:
            self._socket.leave()

    def close_gracefully(self, transport: asyncio.Transport) -> None:
        """Close after an early answer without losing it.

        The kernel answers data on a closed socket with a reset, and a reset discards what the client has not read. So
        while the client still sends, only our side is closed and its data is read and ignored for `bounds.linger`.
        uvicorn and `on_response_complete` both call this; the second call does nothing.
        """
        if "linger" in self._timers:
            return
        if not self._incomplete or not transport.can_write_eof():
            transport.close()
            return
        self._discarding = True
        try:
            transport.write_eof()
        except OSError:  # the client closed first
            transport.abort()
            return
        self.flow.resume_reading()
        self._arm("linger", self._bounds.linger, transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm("stall", self._bounds.stall, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm("stall")

    def _arm(self, name: str, after: float, action: Any) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_later(after, action)

    def _disarm(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _headers_timed_out(self) -> None:
        if self._in_headers:
            late = TimedOut("the headers of the request did not arrive in time")
            self._refuse(Rejection(408, late, close=True))
        else:
            self.transport.close()

    # Bytes

    def data_received(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.feed(data)
            return
        while data and not self._discarding:
            self._piece_size = len(data)
            self._unparsed += self._piece_size
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                # The upgrade is declined: the request is served as HTTP/1.1, and parsing continues after its headers.
                data = data[upgrade.args[0] :]
                if self._body_after_upgrade:
                    self._parse_body()
            except httptools.HttpParserError:
                self._refuse(self._rejection or Rejection(400, _MALFORMED, close=True))
            self._check_unparsed()

    def _parse_body(self) -> None:
        """Replace the parser to read the body of a request that offers an upgrade, as Java's HTTP client sends them.

        llhttp stops after the headers of such a request. A new parser gets headers with the same framing, and its
        callbacks for them are ignored.
        """
        self._body_after_upgrade = False
        framing = [b"%b: %b\r\n" % h for h in self.headers if h[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self._discarding = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
        self._discarding = False

    def _check_unparsed(self) -> None:
        """Refuse an endless header, trailer or chunk extension: the parser calls back only when one is complete."""
        if self._discarding or self._unparsed <= self._bounds.header_bytes + self._bounds.url_bytes:
            return
        if self._in_headers and not self.headers:
            self._refuse(_long_url())
        else:
            self._refuse(_large_headers())

    def _upgrade(self, head: bytes, receiver: RawReceiver) -> RawConnection:
        """Send the head of a response that changes the protocol; all bytes from now on belong to the receiver.

        The request remains in progress until the connection is closed: a drain waits for it, and a listener that
        closes leaves it.
        """
        self.cycle.response_started = True
        self._socket = receiver
        self._disarm("headers")
        self.transport.write(head)
        return RawConnection(self)

    def finish_upgraded(self, *, answered: bool) -> None:
        """Close the connection after the bytes that were written. answered: the client sends nothing more."""
        self.cycle.response_complete = True
        self._incomplete = not answered
        if not self.transport.is_closing():
            self.transport.close()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        if self._discarding:
            return
        super().on_message_begin()
        self._in_headers = self._incomplete = True
        self._unparsed, self._header_bytes, self._header_count = self._piece_size, 0, 0
        if "headers" not in self._timers:
            self._arm("headers", self._bounds.header_time, self._headers_timed_out)

    def on_url(self, url: bytes) -> None:
        if self._discarding:
            return
        super().on_url(url)
        if len(self.url) > self._bounds.url_bytes:
            self._stop(_long_url())

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._discarding:
            return
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        if self._header_bytes > self._bounds.header_bytes or self._header_count > self._bounds.headers:
            self._stop(_large_headers())
        if self._in_headers:  # trailers follow the body; they are counted and ignored
            super().on_header(name, value.rstrip(b" \t"))  # llhttp leaves the white space at the end

    def on_headers_complete(self) -> None:
        if self._discarding:
            return
        self._disarm("headers")
        if self._answering():
            self._discarding = self._pipelined = True
            return
        if self._cap is not None:
            self._cap.busy(self)
        if problem := self._problem():
            self.scope["state"]["refusal"] = problem
        if self.parser.should_upgrade():
            self.scope["state"]["upgrade"] = self._upgrade
        super().on_headers_complete()
        if self.app_state["listener"].closed and self.cycle is not None:
            self.cycle.keep_alive = False
        self._body_after_upgrade = self.parser.should_upgrade() and _announces_body(self.headers)
        self._in_headers = False
        self._unparsed = 0

    def on_body(self, body: bytes) -> None:
        if not self._discarding:
            self._unparsed = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._discarding and not self._body_after_upgrade:
            self._incomplete = False
            self._unparsed = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._cap is not None:
            self._cap.idle(self)
        if self._pipelined and not self.transport.is_closing():
            self._pipelined = False
            alone = Invalid(
                "pipelined requests are not supported", hint="wait for each response before the next request"
            )
            self._answer(Rejection(400, alone, close=True))
            return
        if self._incomplete:
            self.transport.close()
        super().on_response_complete()

    # Refusals

    def _answering(self) -> bool:
        """Return whether the response to an earlier request is incomplete."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _problem(self) -> Rejection | None:
        """Return the refusal of a well-formed request that is ambiguous or one connection too many."""
        if self._surplus and self._cap is not None and self._cap.exceeded and self.url not in _ALWAYS_SERVED:
            full = Unavailable("too many connections", hint="try again later", retry_after=1.0)
            return Rejection(503, full, headers={"retry-after": "1"}, close=True)
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            return Rejection(505, Invalid("only HTTP/1.0 and HTTP/1.1 are supported"), close=True)
        names = [name for name, _ in self.headers]
        hosts, lengths = names.count(b"host"), names.count(b"content-length")
        codings = [v.strip().lower() for n, v in self.headers if n == b"transfer-encoding"]
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            return _bad("a request must have exactly one Host header")
        if lengths > 1 or (lengths and codings):
            return _bad("the length of the body is given twice")  # two readings of it allow request smuggling
        if codings and codings != [b"chunked"]:
            return _bad("the only supported transfer encoding is chunked")
        return None

    def _stop(self, rejection: Rejection) -> None:
        """Stop the parser from inside a callback: it raises `HttpParserError` in place of this exception."""
        self._rejection = rejection
        raise rejection

    def _refuse(self, rejection: Rejection) -> None:
        self._discarding = True
        self._disarm("headers")
        cycle = self.cycle
        if not self._answering():
            self._answer(rejection)
        elif self._in_headers:  # the fault follows a complete request, which is still answered
            cycle.keep_alive = False
        else:  # the fault is in the body of the request that is being served: wake its reader with the end
            cycle.scope["state"]["refusal"] = rejection
            cycle.keep_alive = cycle.more_body = False
            cycle.message_event.set()

    def _answer(self, rejection: Rejection) -> None:
        """Let the application answer with a refusal for a request whose headers are incomplete."""
        if self.transport.is_closing():
            return
        if not self._in_headers:
            super().on_message_begin()
        scope = self.scope
        path, _, query = self.url.partition(b"?")
        scope["method"] = "GET"
        scope["raw_path"], scope["query_string"] = path, query
        scope["path"] = unquote(path.decode("latin-1")) or "/"
        scope["state"]["refusal"] = rejection
        self.cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        self._start_asgi_task(self.cycle, self.app)


class RawReceiver(Protocol):
    """Takes the bytes of a connection after a change of its protocol."""

    def feed(self, data: bytes) -> None: ...

    def lost(self) -> None:
        """Note that the connection is closed."""
        ...

    def leave(self) -> None:
        """Note that the server stops."""
        ...


class RawConnection:
    """The connection after a change of its protocol."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._protocol.transport.is_closing():
            self._protocol.transport.write(data)

    async def drain(self) -> None:
        """Wait until the send buffer has room. A client that reads nothing for long is disconnected."""
        if self._protocol.flow.write_paused:
            await self._protocol.flow.drain()

    def pause(self, paused: bool) -> None:
        """Stop or continue to read."""
        flow = self._protocol.flow
        if paused:
            flow.pause_reading()
        else:
            flow.resume_reading()

    def close(self, *, answered: bool) -> None:
        """Close after the bytes that were written. answered: the client sends nothing more."""
        self._protocol.finish_upgraded(answered=answered)

    def abort(self) -> None:
        """Close at once."""
        self._protocol.cycle.response_complete = True
        self._protocol.transport.abort()


class LingeringTransport:
    """The transport that uvicorn writes to.

    `close` goes through `close_gracefully`. The head of a response, which uvicorn writes separately, is held until the
    next write or the next turn of the event loop, so that head and body take one system call.
    """

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._closing = False
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._closing:  # an early answer was the last one
            return
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/"):  # a piece of a body with this beginning is sent one turn later
            self._head = data
            self._protocol.loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            self.write(b"")

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + len(self._head)

    def close(self) -> None:
        self._flush()
        self._closing = True
        self._protocol.close_gracefully(self._transport)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in headers)


def _bad(message: str) -> Rejection:
    return Rejection(400, Invalid(message, hint="the connection is closed"), close=True)


def _long_url() -> Rejection:
    error: MullamaError = TooLarge("the address of the request is too long")
    return Rejection(414, error, close=True)


def _large_headers() -> Rejection:
    error: MullamaError = TooLarge("the headers of the request are too large", hint="send fewer")
    return Rejection(431, error, close=True)
