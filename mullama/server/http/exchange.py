"""One HTTP request and its response, between ASGI and the rest of the server."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from copy import copy
from typing import Any, Literal
from urllib.parse import parse_qsl

from mullama.dialects.base import Reply
from mullama.dialects.http_status import retry_headers
from mullama.dialects.operator_errors import ERROR_SCHEMA, error_reply
from mullama.dialects.rate_limits import RateReport, openai_headers
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.runtime.base import Caller
from mullama.server.http.strict_json import to_json, to_json_parts
from mullama.struct import Struct
from mullama.trace_context import TraceContext

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
"""ASGI's types."""

Media = Literal["text/event-stream", "application/x-ndjson"]


class ErrorFormat(Struct, frozen=True, kw_only=True):
    """The form of an API's errors, and of its headers."""

    error: Callable[[MullamaError, str], Reply]
    """Makes the reply of an error and a request id."""
    id_header: str = "x-request-id"
    """The response header that carries the request id."""
    schema: JSONValue = None
    """The JSON Schema of the reply's body."""
    rate_headers: Callable[[RateReport, float], Mapping[str, str]] = openai_headers
    """Return the response headers with what is left of the rate limits at this Unix time."""


OPERATOR = ErrorFormat(error=error_reply, schema=ERROR_SCHEMA)


class ClientDisconnected(Exception):
    """The client closed its connection, so no answer can be sent."""


class Rejection(Exception):
    """An error with an HTTP status of its own (405, 408, 415 …). `close` ends the connection after the reply."""

    def __init__(
        self,
        status: int,
        error: MullamaError,
        *,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = headers or {}
        self.close = close


class Listener(Struct, kw_only=True):
    """The listener that accepted a connection. `hosts` are the names and addresses it is bound to."""

    kind: Literal["tcp", "unix", "control"] = "tcp"
    hosts: tuple[str, ...] = ()
    closed: bool = False
    """It accepts no more connections, and those that it has end after their response."""


class Notes(Struct, kw_only=True):
    """The fields of a request's log line, collected while it is served. Times are seconds since its start."""

    dialect: str = ""
    route: str = ""
    key: str | None = None
    model: str = ""
    answered_by: str = ""
    stream: bool = False
    generation: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt: str | None = None
    error: MullamaError | None = None
    disconnected: bool = False
    bytes_in: int = 0
    first_byte: float | None = None


class Exchange:
    """One request as plain values, and its response: `reply`, or `begin`, `write` and `end` for a stream.

    `headers` has lower-case names; a header that is given twice is joined with a comma.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        id: str,
        error_format: ErrorFormat,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id
        self.request_id = f"req_{id}"
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scope = scope
        self.error_format = error_format
        self.notes = Notes()
        self.caller = Caller(
            dialect="", request_id=self.request_id, models=(), roles=()
        )  # without rights until it is authenticated
        self.key_digest: bytes | None = None
        """SHA-256 of the secret of the caller's key."""
        self.authorized: Callable[[], bool] = lambda: True
        """Return whether the caller may use the route now: its key may be revoked while a stream is open."""
        self.trace: TraceContext | None = None
        self.status = 0
        self.bytes_out = 0
        self.finished = False
        self.close = False
        self.extra: dict[str, str] = {}
        self._receive = receive
        self._send = send
        self._clock = clock
        self._started_at = clock()
        self.headers = _joined(scope["headers"])
        self._body_read = not self.has_body

    @property
    def query(self) -> Mapping[str, str]:
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    @property
    def listener(self) -> Listener:
        state: Mapping[str, Any] = self.scope.get("state") or {}
        listener = state.get("listener")
        return listener if isinstance(listener, Listener) else Listener()

    @property
    def client(self) -> str:
        """The client's address without its port; for a unix socket, the listener's kind."""
        client = self.scope.get("client")
        return str(client[0]) if client else self.listener.kind

    @property
    def has_body(self) -> bool:
        """True when the headers announce a body."""
        length = self.headers.get("content-length", "0")
        return "transfer-encoding" in self.headers or length.strip("0") != ""

    @property
    def response_started(self) -> bool:
        """True once a status is sent: from then on an error can only be reported in the body."""
        return self.status != 0

    @property
    def elapsed(self) -> float:
        return self._clock() - self._started_at

    async def receive(self) -> Message:
        """Return the next piece of the body, or raise `ClientDisconnected`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.notes.bytes_in += len(message.get("body", b""))
        self._body_read = not message.get("more_body", False)
        return message

    def warn(self, warnings: Sequence[str]) -> None:
        """Send these warnings in a response header. Later warnings replace earlier ones."""
        if warnings:
            self.extra["mullama-warning"] = "; ".join(warnings)

    def answered_by(self, model: str) -> None:
        """Name the model that answers in a response header, and in the log line if the client named another one."""
        if model:
            self.extra["mullama-model"] = model
            self.notes.answered_by = model if model != self.notes.model else ""

    def redirected(self, receive: Receive, send: Send) -> Exchange:
        """Return this exchange, after its body was read, with another connection; it shares the notes and headers."""
        other = copy(self)
        other._receive, other._send, other._body_read = receive, send, True
        return other

    async def wait_disconnected(self) -> None:
        """Wait until the connection is closed. Call it only after the body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def upgraded(self) -> None:
        """Note that the connection has another protocol from now on."""
        self.status, self.notes.first_byte, self.notes.stream = 101, self.elapsed, True

    async def reply(self, reply: Reply, encoded: tuple[bytes, str] | None = None) -> None:
        """Send a complete response. `encoded` is `to_body(reply)`, if that was computed before."""
        body, media = encoded or to_body(reply)
        headers = {"content-type": media} if media else {}
        headers |= {name.lower(): value for name, value in reply.headers.items()}
        headers["content-length"] = str(len(body))
        if reply.status == 501:  # the official clients retry every status from 500 up
            headers.setdefault("x-should-retry", "false")
        await self._start(reply.status, headers)
        self.finished = True
        self.bytes_out += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: MullamaError) -> None:
        """Send the error in the format of the API that was called."""
        self.notes.error = error
        reply = self.error_format.error(error, self.request_id)
        headers = {**retry_headers(error), **reply.headers}
        await self.reply(Reply(body=reply.body, status=reply.status, headers=headers))

    async def reject(self, rejection: Rejection) -> None:
        """Send the error with the status and headers of the rejection."""
        self.notes.error = rejection.error
        self.close = self.close or rejection.close
        reply = self.error_format.error(rejection.error, self.request_id)
        headers = {**reply.headers, **rejection.headers}
        await self.reply(Reply(body=reply.body, status=rejection.status, headers=headers))

    async def begin(self, media: Media, headers: Mapping[str, str] | None = None) -> None:
        """Send the status and headers of a stream."""
        charset = "; charset=utf-8" if media == "text/event-stream" else ""
        self.notes.stream = True
        await self._start(
            200,
            {
                "content-type": media + charset,
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
                **(headers or {}),
            },
        )

    async def begin_file(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and headers of an answer whose bytes follow by `write`; content-length is among them."""
        await self._start(status, {"content-type": "application/octet-stream", **headers})

    async def write(self, data: bytes) -> None:
        """Send one piece of a stream in one write; returns when the send buffer has room again."""
        if data:
            self.bytes_out += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.notes.first_byte = self.elapsed
        ids = {"x-request-id": self.request_id, self.error_format.id_header: self.request_id}
        fields = {**headers, **self.extra, **ids}
        if self.notes.dialect == "openai":
            fields["openai-processing-ms"] = str(math.ceil(self.notes.first_byte * 1000))
        if self.close or not self._body_read:  # an unread rest of the body must not be parsed as a request
            fields["connection"] = "close"
        raw = [(name.encode("latin-1"), _header_value(value)) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


def to_body(reply: Reply, *, large: bool = False) -> tuple[bytes, str]:
    """Return the bytes of a reply's body and their media type, "" without a body.

    `large` divides the work for a thread, see `to_json_parts`.
    """
    if reply.body is None:
        return b"", ""
    if isinstance(reply.body, str):
        return reply.body.encode(), "text/plain; charset=utf-8"
    return (to_json_parts if large else to_json)(reply.body), "application/json"


def _header_value(value: str) -> bytes:
    """Return one line of ASCII, so that text from a client cannot end the header or begin another."""
    if value.isascii() and value.isprintable():  # of every header that no client's text is in
        return value.encode("ascii")
    line = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in value)
    return line.encode("ascii", "backslashreplace")


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
