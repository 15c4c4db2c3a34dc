"""One HTTP request and its answer, between ASGI and the rest of the server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from mullama.dialects.base import Reply
from mullama.dialects.http_status import retry_headers
from mullama.dialects.operator_errors import ERROR_SCHEMA, error_reply
from mullama.errors import MullamaError
from mullama.names import JSONValue
from mullama.runtime.base import Caller
from mullama.server.http.asgi import Message, Receive, Scope, Send
from mullama.server.http.framing import Media, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFormat:
    """How an API says an error, the JSON schema of that, and the header that carries its request ids."""

    error: Callable[[MullamaError, str], Reply]
    id_header: str = "x-request-id"
    schema: JSONValue = None


OPERATOR = ErrorFormat(error=error_reply, schema=ERROR_SCHEMA)


class ClientDisconnected(Exception):
    """The client closed its connection; nobody is left to be told anything."""


class Rejection(Exception):
    """An error for which HTTP has a status of its own (405, 408, 415 …); `close` ends the connection."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where a request came in. `hosts` are the names and addresses that the listener was bound to."""

    kind: Literal["tcp", "unix", "control"] = "tcp"
    hosts: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Notes:
    """What the log line of a request tells, gathered on the way."""

    dialect: str = ""
    route: str = ""
    key: str | None = None
    model: str = ""
    stream: bool = False
    generation: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt: str | None = None
    error: MullamaError | None = None
    gone: bool = False
    bytes_in: int = 0
    first: float | None = None


class Exchange:
    """The request's parts as plain values, and the three moves of an answer: begin, write, end.

    headers: lower-case names; a header given twice is joined with a comma.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        id: str,
        voice: ErrorFormat,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id
        self.request_id = f"req_{id}"
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scope = scope
        self.voice = voice
        self.notes = Notes()
        self.caller = Caller(dialect="", request_id=self.request_id, models=(), roles=())  # until the guard knows
        self.status = 0
        self.bytes_out = 0
        self.finished = False
        self.close = False
        self.extra: dict[str, str] = {}
        self._receive = receive
        self._send = send
        self._clock = clock
        self.started = clock()
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
        """The address that asks, without its port; the listener's kind where there is no address."""
        client = self.scope.get("client")
        return str(client[0]) if client else self.listener.kind

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body."""
        length = self.headers.get("content-length", "0")
        return "transfer-encoding" in self.headers or length.strip("0") != ""

    @property
    def begun(self) -> bool:
        """Whether a status has been sent, so that an error must be said in the body."""
        return self.status != 0

    @property
    def elapsed(self) -> float:
        return self._clock() - self.started

    async def receive(self) -> Message:
        """The next piece of the body, or `ClientDisconnected`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.notes.bytes_in += len(message.get("body", b""))
        self._body_read = not message.get("more_body", False)
        return message

    def warn(self, warnings: Sequence[str]) -> None:
        """What of the request could not be had, in a header of the answer; the last word counts."""
        if warnings:
            self.extra["mullama-warning"] = "; ".join(warnings)

    async def wait_disconnected(self) -> None:
        """Waits until the connection is gone; only once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def reply(self, reply: Reply) -> None:
        """The whole answer."""
        body, media = _body(reply)
        headers = {"content-type": media} if media else {}
        headers |= {name.lower(): value for name, value in reply.headers.items()}
        headers["content-length"] = str(len(body))
        if reply.status == 501:  # official clients take every status from 500 up for a passing trouble
            headers.setdefault("x-should-retry", "false")
        await self._start(reply.status, headers)
        self.finished = True
        self.bytes_out += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: MullamaError) -> None:
        """The error in the words of the API that was called."""
        self.notes.error = error
        reply = self.voice.error(error, self.request_id)
        headers = {**retry_headers(error), **reply.headers}
        await self.reply(Reply(body=reply.body, status=reply.status, headers=headers))

    async def reject(self, rejection: Rejection) -> None:
        """The same, with the status that HTTP has for it."""
        self.notes.error = rejection.error
        self.close = self.close or rejection.close
        reply = self.voice.error(rejection.error, self.request_id)
        headers = {**reply.headers, **rejection.headers}
        await self.reply(Reply(body=reply.body, status=rejection.status, headers=headers))

    async def begin(self, media: Media, headers: Mapping[str, str] | None = None) -> None:
        """Status and headers of a stream."""
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

    async def write(self, data: bytes) -> None:
        """One piece of a stream, as one write; returns when the client can take more."""
        if data:
            self.bytes_out += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        self.finished = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.notes.first = self.elapsed
        ids = {"x-request-id": self.request_id, self.voice.id_header: self.request_id}
        whole = {**headers, **self.extra, **ids}
        if self.notes.dialect == "openai":
            whole["openai-processing-ms"] = str(math.ceil(self.notes.first * 1000))
        if self.close or not self._body_read:  # what still comes of a body is not read as a request
            whole["connection"] = "close"
        raw = [(name.encode("latin-1"), _header_value(value)) for name, value in whole.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


def _body(reply: Reply) -> tuple[bytes, str]:
    if reply.body is None:
        return b"", ""
    if isinstance(reply.body, str):
        return reply.body.encode(), "text/plain; charset=utf-8"
    return to_json(reply.body), "application/json"


def _header_value(value: str) -> bytes:
    """One line of ASCII: nothing that came from a client can end the header or begin another."""
    line = "".join(" " if ord(c) < 32 or ord(c) == 127 else c for c in value)
    return line.encode("ascii", "backslashreplace")


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
