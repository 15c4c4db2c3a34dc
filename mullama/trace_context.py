"""W3C Trace Context: the headers `traceparent` and `tracestate`, the trace of a request, and its spans. Pure.

Source: https://www.w3.org/TR/trace-context-2/ for the headers of requests, and its draft of `traceresponse`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

from mullama.struct import Struct

SAMPLED = 1
_KNOWN_FLAGS = 3  # sampled, and random-trace-id of level 2
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_MOST_MEMBERS = 32
_LONGEST_STATE = 512
_LONG_MEMBER = 128


AttributeValue = str | bool | int | float | tuple[str, ...]


class TraceContext(Struct, frozen=True, kw_only=True):
    """The place of one request in a trace. Ids are lower-case hexadecimal."""

    trace_id: str
    """32 digits."""
    span_id: str
    """The 16 digits of the request's own span, the parent of everything that it causes."""
    parent_id: str = ""
    """The span of the client; "" for the first span of a trace."""
    flags: int = 0
    state: str = ""
    """The list of `tracestate`, passed on without a change."""

    @property
    def sampled(self) -> bool:
        """True if the spans of the trace are recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def parent(self) -> str:
        """The value of `traceparent` for requests that this one causes, and of `traceresponse` for its client."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that this one causes."""
        return {"traceparent": self.parent, **({"tracestate": self.state} if self.state else {})}


class Span(Struct, frozen=True, kw_only=True):
    """A piece of work that has ended, in a trace. It holds no text of a request. Times are Unix seconds."""

    trace_id: str
    span_id: str
    parent_id: str
    """"" for the first span of a trace."""
    name: str
    begin: float
    end: float
    attributes: Mapping[str, AttributeValue]
    """Names are those of OpenTelemetry's semantic conventions where they have one."""
    serves: bool = False
    """It is the span of a request that a client sent."""
    error: str | None = None
    """The message of an error; "" for one without."""
    state: str = ""
    """The `tracestate`."""


def continued(headers: Mapping[str, str], span_id: str) -> TraceContext | None:
    """Return the context of a request, with `span_id` as its own span; None without a valid `traceparent`.

    headers: by lower-case names, a repeated header joined with commas. A version after 00 is read as 00 with
    additions. An invalid `tracestate` is left out, as the specification demands.
    """
    match = _PARENT.fullmatch(headers.get("traceparent", "").strip())
    if match is None:
        return None
    version, trace, parent, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(parent, 16):
        return None
    return TraceContext(
        trace_id=trace,
        span_id=span_id,
        parent_id=parent,
        flags=int(flags, 16) & _KNOWN_FLAGS,
        state=_state(headers.get("tracestate", "")),
    )


def _state(text: str) -> str:
    """Return the members of a `tracestate`, at most 512 characters of them; "" for an invalid list."""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    matches = [_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    if len(members) > _MOST_MEMBERS or None in matches or len(keys) < len(members):
        return ""
    if sum(map(len, members)) + len(members) - 1 > _LONGEST_STATE:  # the order of removal is the specification's
        members = [member for member in members if len(member) <= _LONG_MEMBER]
    while members and sum(map(len, members)) + len(members) - 1 > _LONGEST_STATE:
        members.pop()
    return ",".join(members)


class RequestTrace:
    """The trace of one request while it is in progress.

    Tasks that the request starts inherit it and may outlive the request; `context` is None for them from its end on.
    """

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context

    def end(self) -> None:
        self.context = None


_IN_PROGRESS: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)


def begin(context: TraceContext) -> RequestTrace:
    """Return the trace of a request, which `current` returns in its task until it ends."""
    trace = RequestTrace(context)
    _IN_PROGRESS.set(trace)
    return trace


def current() -> TraceContext | None:
    """Return the trace of the request that causes the present work; None for work that no traced request causes."""
    trace = _IN_PROGRESS.get()
    return trace.context if trace is not None else None
