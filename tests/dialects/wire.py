"""Talking to the dialects without a server: endpoints by path, events from JSON, conversations as values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from mullama import errors
from mullama.chat import inventory, types
from mullama.chat.answer import fold
from mullama.dialects import DIALECTS, base
from mullama.dialects.base import Dialect, Endpoint, Frame, Reply, ReplyContext, StreamEncoder, WireRequest
from mullama.struct import Struct, defaults, field_names, replace

CONTEXT: ReplyContext[Any, Any] = ReplyContext(
    operation=None,
    result=None,
    id="0123456789abcdef01234567",
    created=1763600000.25,
    version="0.1.0",
    context_size=4096,
)
TIMINGS = types.Timings(total=2.0, load=0.5, prompt=0.25, decode=1.0)
USAGE = types.Usage(prompt_tokens=12, cached_tokens=4, completion_tokens=6, reasoning_tokens=2)
DONE = types.Completed(usage=USAGE, timings=TIMINGS)
STOPPED = types.Finished(reason=types.StopReason.STOP)
CALLED = types.Finished(reason=types.StopReason.TOOL_CALLS)
STARTED = types.Started(prompt_tokens=12, cached_tokens=4)
CALL = types.ToolCall(id="call_7f3a", name="weather", arguments={"city": "Zürich", "days": 2})
CALL_EVENTS: tuple[types.Event, ...] = (
    types.ToolCallStarted(index=0, id=CALL.id, name=CALL.name),
    types.ToolCallDelta(index=0, text='{"city":"Zür'),
    types.ToolCallDelta(index=0, text='ich","days":2}'),
    types.ToolCallFinished(index=0, call=CALL),
)
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"x": {"const": 1}},
}


def endpoint(path: str, method: str = "POST", dialect: str | None = None) -> Endpoint:
    """The endpoint of this very path, in the first dialect that has it or the one named."""
    served = [DIALECTS[dialect]] if dialect else list(DIALECTS.values())
    found = [e for d in served for e in d.endpoints if e.method == method and e.path == path]
    assert found, f"no endpoint {method} {path}"
    return found[0]


def decode(path: str, body: Any, method: str = "POST", **parts: Any) -> Any:
    """Return the operation that the endpoint decodes from a body."""
    return endpoint(path, method).decode(WireRequest(body=body, **parts))


def encode(one: Endpoint, operation: Any, result: Any = None, context: ReplyContext[Any, Any] = CONTEXT) -> Reply:
    """Return the reply of an endpoint to the result of an operation."""
    return one.encode(replace(context, operation=operation, result=result))


def stream(one: Endpoint, operation: Any, context: ReplyContext[Any, Any] = CONTEXT) -> StreamEncoder:
    """Return the stream encoder of an endpoint for an operation."""
    assert one.stream is not None
    return one.stream(replace(context, operation=operation))


def run_of(*middle: types.Event, end: types.Finished = STOPPED) -> tuple[types.Event, ...]:
    """Return the events of a complete request with one choice."""
    return (STARTED, *middle, end, DONE)


def frames(path: str, body: Any, events: Iterable[Any]) -> list[Frame]:
    """The frames of a stream."""
    one = endpoint(path)
    assert one.stream is not None
    encoder = stream(one, one.decode(WireRequest(body={**body, "stream": True})))
    return [frame for event in events for frame in encoder.feed(event)]


def data(path: str, body: Any, events: Iterable[Any]) -> list[Any]:
    """The data of the frames that carry any, without comments and markers."""
    return [f.data for f in frames(path, body, events) if not f.comment and not isinstance(f.data, str)]


def reply(path: str, body: Any, events: Iterable[Any]) -> Any:
    """The body of the whole answer to the same request."""
    one = endpoint(path)
    operation = one.decode(WireRequest(body={**body, "stream": False}))
    return encode(one, operation, fold(events)).body


# JSON forms of values, for the golden conversations.


def event_of(value: Mapping[str, Any]) -> Any:
    """An event from `{"TextDelta": {…}}`; `{"fail": {…}}` is an error."""
    [(name, members)] = value.items()
    if name == "fail":
        said = dict(members)
        return getattr(errors, said.pop("error"))(*said.pop("arguments", ()), **said)
    kinds = (getattr(place, name, None) for place in (types, inventory, base))
    return _value(next(kind for kind in kinds if kind is not None), members)


_INNER: dict[str, Any] = {
    "usage": types.Usage,
    "timings": types.Timings,
    "call": types.ToolCall,
    "reason": types.StopReason,
}


def _value(kind: Any, members: Mapping[str, Any]) -> Any:
    return kind(**{name: _member(name, value) for name, value in members.items()})


def _member(name: str, value: Any) -> Any:
    if name in ("logprobs", "top"):
        return tuple(_token(one) for one in value)
    kind = _INNER.get(name)
    if kind is None:
        return tuple(value) if isinstance(value, list) else value
    return kind(value) if issubclass(kind, Enum) else _value(kind, value)


def _token(value: Mapping[str, Any]) -> types.TokenLogprob:
    said = {"bytes": value["text"].encode(), "top": (), **value}
    top = tuple(_token(t) for t in said["top"])
    return types.TokenLogprob(**{**said, "logprob": float(said["logprob"]), "top": top})


def shown(value: Any) -> Any:
    """A value as JSON, without the members that have their defaults: for eyes and for golden files."""
    if isinstance(value, Struct):
        usual, values = defaults(type(value)), {name: getattr(value, name) for name in field_names(value)}
        other = {
            n: shown(v)
            for n, v in values.items()
            if n not in ("place", "prompt_place") and (n not in usual or v != usual[n])
        }
        return {type(value).__name__: other}
    if isinstance(value, Mapping):
        return {str(k): shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown(v) for v in value]
    return value.hex() if isinstance(value, bytes) else value


def shown_frame(frame: Frame) -> Any:
    if frame.comment:
        return {"comment": frame.data}
    return {"event": frame.event, "data": frame.data} if frame.event else {"data": frame.data}


def shown_reply(reply: Reply) -> Any:
    status = {"status": reply.status} if reply.status != 200 else {}
    headers = {"headers": dict(reply.headers)} if reply.headers else {}
    return {**status, **headers, "body": reply.body}


def route(method: str, path: str, headers: Mapping[str, str]) -> tuple[Dialect, Endpoint, dict[str, str]] | None:
    """The endpoint that a server would choose, with the variable parts of the path."""
    found: list[tuple[Dialect, Endpoint, dict[str, str]]] = []
    for dialect in DIALECTS.values():
        for one in dialect.endpoints:
            pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", one.path)
            match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), path)
            if match and one.method == method:
                found.append((dialect, one, match.groupdict()))
    meant = [f for f in found if f[1].when is not None and f[1].when(headers)]
    plain = [f for f in found if f[1].when is None]
    return next(iter(meant or plain or found), None)


def strict_json(value: Any) -> str:
    """The value as JSON, if it is any: no NaN, no infinity, no half characters."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return text
