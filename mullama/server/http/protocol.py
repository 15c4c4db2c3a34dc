"""HTTP/1.1 on one connection: uvicorn's protocol with deadlines, bounds, and no doubtful request let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mullama.errors import Invalid, MullamaError, TimedOut, TooLarge, Unavailable
from mullama.server.http.exchange import Rejection
from mullama.server.http.limits import Bounds

_MALFORMED = Invalid("the request is not well-formed HTTP", hint="the connection is closed")


class BoundedProtocol(HttpToolsProtocol):
    """A request that breaks a rule is still answered by the application, with a `refusal` in its state,
    so that the error has the shape of the API that was called; then the connection ends.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        bounds: Bounds,
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(config, state, app_state)
        self._bounds = bounds
        self._on_lost = on_lost
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_headers = False  # a request has begun, its headers have not ended
        self._incomplete = False  # a request has begun, its body has not ended
        self._deaf = False  # whatever still comes is thrown away
        self._unread = 0  # bytes since the last thing that was made of them
        self._piece = 0  # bytes that the parser is working on
        self._header_bytes = 0
        self._rejection: Rejection | None = None
        self._pipelined = False
        self._body_behind_upgrade = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Lingering(transport, self)))
        if len(self.connections) > 2 * self._bounds.connections:
            transport.abort()  # far beyond what is refused politely below
        self._arm("headers", self._bounds.header_time, self._headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        super().connection_lost(exc)
        self._on_lost()

    def hang_up(self, transport: asyncio.Transport) -> None:
        """Close; but while the client still sends, read on a little, or it would never see the answer.

        An answer that comes early is closed behind twice, here and by uvicorn: the second time changes nothing.
        """
        if "linger" in self._timers:
            return
        if not self._incomplete or not transport.can_write_eof():
            transport.close()
            return
        self._deaf = True
        try:
            transport.write_eof()
        except OSError:  # gone already
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

    def _headers_late(self) -> None:
        if self._in_headers:
            late = TimedOut("the headers of the request did not come in time")
            self._refuse(Rejection(408, late, close=True))
        else:
            self.transport.close()

    # Bytes

    def data_received(self, data: bytes) -> None:
        while data and not self._deaf:
            self._piece = len(data)
            self._unread += self._piece
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                # There is no protocol to change to: the request is served as it is, go on behind it.
                data = data[upgrade.args[0] :]
                if self._body_behind_upgrade:
                    self._read_body_after_all()
            except httptools.HttpParserError:
                self._refuse(self._rejection or Rejection(400, _MALFORMED, close=True))
            self._check_unread()

    def _read_body_after_all(self) -> None:
        """The parser takes no body of a request that offers to upgrade, as those of Java's client do:
        a new one is put in front of the body and told what the headers said of it.
        """
        self._body_behind_upgrade = False
        framing = [b"%b: %b\r\n" % h for h in self.headers if h[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self._deaf = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
        self._deaf = False

    def _check_unread(self) -> None:
        """One endless header, trailer or chunk extension is never shown to the callbacks below."""
        if self._deaf or self._unread <= self._bounds.header_bytes + self._bounds.url_bytes:
            return
        if self._in_headers and not self.headers:
            self._refuse(_long_url())
        else:
            self._refuse(_large_headers())

    # What the parser finds

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        super().on_message_begin()
        self._in_headers = self._incomplete = True
        self._unread, self._header_bytes = self._piece, 0
        if "headers" not in self._timers:
            self._arm("headers", self._bounds.header_time, self._headers_late)

    def on_url(self, url: bytes) -> None:
        if self._deaf:
            return
        super().on_url(url)
        if len(self.url) > self._bounds.url_bytes:
            self._stop(_long_url())

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._deaf or not self._in_headers:  # behind the body there are trailers: not for us
            return
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._bounds.header_bytes or len(self.headers) > self._bounds.headers:
            self._stop(_large_headers())

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._disarm("headers")
        if self._answering():
            self._deaf = self._pipelined = True
            return
        if problem := self._problem():
            self.scope["state"]["refusal"] = problem
        super().on_headers_complete()
        self._body_behind_upgrade = self.parser.should_upgrade() and _announces_body(self.headers)
        self._in_headers = False
        self._unread = 0

    def on_body(self, body: bytes) -> None:
        if not self._deaf:
            self._unread = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._deaf and not self._body_behind_upgrade:
            self._incomplete = False
            self._unread = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._pipelined:
            self._pipelined = False
            alone = Invalid("one request at a time", hint="wait for each answer before asking again")
            self._answer(Rejection(400, alone, close=True))
            return
        if self._incomplete:
            self.transport.close()
        super().on_response_complete()

    # Refusing

    def _answering(self) -> bool:
        """Whether a request before this one has not been answered to its end yet."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _problem(self) -> Rejection | None:
        """What is wrong with a request that could be parsed."""
        if len(self.connections) > self._bounds.connections:
            full = Unavailable("too many connections", hint="try again later", retry_after=1.0)
            return Rejection(503, full, headers={"retry-after": "1"}, close=True)
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            return Rejection(505, Invalid("only HTTP/1.1 is spoken here"), close=True)
        names = [name for name, _ in self.headers]
        hosts, lengths = names.count(b"host"), names.count(b"content-length")
        codings = [v.strip().lower() for n, v in self.headers if n == b"transfer-encoding"]
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            return _bad("a request has exactly one Host header")
        if lengths > 1 or (lengths and codings):
            return _bad("the length of the body is said twice")
        if codings and codings != [b"chunked"]:
            return _bad("the only transfer encoding here is chunked")
        return None

    def _stop(self, rejection: Rejection) -> None:
        """End parsing from inside a callback; the parser turns this into its own error."""
        self._rejection = rejection
        raise rejection

    def _refuse(self, rejection: Rejection) -> None:
        self._deaf = True
        self._disarm("headers")
        cycle = self.cycle
        if not self._answering():
            self._answer(rejection)
        elif self._in_headers:  # rubbish behind a good request: that one is still answered
            cycle.keep_alive = False
        else:
            cycle.scope["state"]["refusal"] = rejection
            cycle.keep_alive = cycle.more_body = False
            cycle.message_event.set()

    def _answer(self, rejection: Rejection) -> None:
        """Let the application say no to a request of which not everything is known."""
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


class Lingering:
    """The transport as uvicorn sees it: closing goes through `hang_up`, and the head of an answer, which uvicorn
    writes alone, leaves together with what follows it in the same turn of the event loop: one call of the system.
    """

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._closing = False
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/"):  # a body that begins like this only waits in vain
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
        self._protocol.hang_up(self._transport)

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
