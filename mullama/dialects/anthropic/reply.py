"""Anthropic's message object, and its stream of named events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, assert_never

from mullama.chat import types
from mullama.chat.citations import numbered, pages_of
from mullama.dialects import schema
from mullama.dialects.anthropic import mcp, web_search
from mullama.dialects.anthropic.errors import envelope
from mullama.dialects.base import Frame, Reply, ReplyContext, StreamEvent
from mullama.dialects.reply_values import prefixed
from mullama.dialects.tools import arguments_object, arguments_text, compact
from mullama.errors import MullamaError
from mullama.names import JSONValue

_PING = Frame(event="ping", data={"type": "ping"})


def _usage(prompt: int, cached: int, output: int) -> dict[str, JSONValue]:
    """Return the counts; `input_tokens` excludes cached tokens, so that the parts add up."""
    return {
        "input_tokens": max(0, prompt - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }


def _used(usage: types.Usage) -> dict[str, JSONValue]:
    return _usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def stop_reason(reason: types.StopReason) -> str:
    """Return Anthropic's word for the reason. A cancelled answer is one that reached a limit."""
    match reason:
        case types.StopReason.STOP:
            return "end_turn"
        case types.StopReason.STOP_SEQUENCE:
            return "stop_sequence"
        case types.StopReason.LENGTH | types.StopReason.CANCELLED:
            return "max_tokens"
        case types.StopReason.TOOL_CALLS:
            return "tool_use"
        case types.StopReason.TOOL_LIMIT:
            return "pause_turn"
        case _:
            assert_never(reason)


def _signature(context: ReplyContext[types.ChatRequest, Any]) -> str:
    """Return the signature that clients require for thinking. It is not verified when it returns."""
    return f"mullama-{context.id}"


def _message(context: ReplyContext[types.ChatRequest, Any]) -> dict[str, JSONValue]:
    return {
        "id": f"msg_{context.id}",
        "type": "message",
        "role": "assistant",
        "model": context.operation.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _blocks(choice: types.Choice, context: ReplyContext[types.ChatRequest, Any]) -> Iterator[JSONValue]:
    pages = pages_of(choice.parts)
    for part in choice.parts:
        if isinstance(part, types.ToolCall):
            yield {
                "type": "tool_use",
                "id": prefixed(part.id, "toolu_"),
                "name": part.name,
                "input": arguments_object(part),
            }
        elif isinstance(part, types.ToolRun):
            if context.operation.shows_calls:
                yield from (web_search if part.started.search else mcp).run_blocks(part)
        elif not isinstance(part, types.TextRun):
            pass
        elif part.thinking:
            yield {"type": "thinking", "thinking": part.text, "signature": _signature(context)}
        elif part.text:
            # Without `citations`: Anthropic's own clients accept its absence, and others refuse null.
            found = web_search.citations(part.text, pages) if context.operation.shows_calls else []
            yield {"type": "text", "text": part.text, **({"citations": found} if found else {})}


def encode(context: ReplyContext[types.ChatRequest, types.Answer]) -> Reply:
    """Return the complete answer as one object."""
    choice = context.result.choices[0]
    return Reply(
        body={
            **_message(context),
            "content": list(_blocks(choice, context)),
            "stop_reason": stop_reason(choice.reason),
            "stop_sequence": choice.stop_sequence,
            "usage": _used(context.result.usage),
        }
    )


def encode_count(context: ReplyContext[types.CountRequest, types.TokenCount]) -> Reply:
    return Reply(body={"input_tokens": context.result.tokens})


class MessageStream:
    """Writes message_start, ping, the blocks in order, message_delta, message_stop."""

    media: Literal["text/event-stream", "application/x-ndjson"] = "text/event-stream"

    def __init__(self, context: ReplyContext[types.ChatRequest, None]) -> None:
        self._context = context
        self._message = _message(context)
        self._index = -1
        self._block = ""  # the type of the open block
        self._written = False  # whether the open tool_use has had any input
        self._last = types.Finished(reason=types.StopReason.STOP)
        self._ended = False
        self._shows = context.operation.shows_calls
        self._started: dict[str, types.ToolStarted] = {}  # the searches of the web by the ids of their calls
        self._pages: list[types.ToolEnded] = []  # the results of searches
        self._text_block: list[str] = []  # the text of the open block after a search
        self.whole: JSONValue = None

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta():
                return self._text(event.text)
            case types.ThinkingDelta():
                return self._thinking(event.text)
            case types.ToolCallStarted() | types.ToolCallDelta() | types.ToolCallFinished():
                return tuple(self._tool(event))
            case types.ToolStarted():
                return tuple(self._server_call(event)) if self._shows else tuple(self._close())
            case types.ToolEnded() if self._shows:
                return (*self._open(self._result(event)), *self._close())
            case types.Started():
                return (self._start(event), _PING)
            case types.Finished():
                self._last = event
                return tuple(self._close())
            case types.Completed() if not self._ended:
                self._ended = True
                return self._completed(event)
            case _:
                return ()

    def _start(self, event: types.Started) -> Frame:
        usage = _usage(event.prompt_tokens, event.cached_tokens, 1)
        message: JSONValue = {**self._message, "usage": usage}
        return _event("message_start", message=message)

    def _text(self, text: str) -> tuple[Frame, ...]:
        if self._pages:
            self._text_block.append(text)
        if self._block == "text":
            return (self._delta(type="text_delta", text=text),)
        if not text:
            return ()
        opening = self._open({"type": "text", "text": ""})
        return (*opening, self._delta(type="text_delta", text=text))

    def _thinking(self, text: str) -> tuple[Frame, ...]:
        if self._block == "thinking":
            return (self._delta(type="thinking_delta", thinking=text),)
        opening = self._open({"type": "thinking", "thinking": "", "signature": ""})
        return (*opening, self._delta(type="thinking_delta", thinking=text))

    def _tool(self, event: types.ToolCallStarted | types.ToolCallDelta | types.ToolCallFinished) -> Iterator[Frame]:
        """Yield the frames of a call: the name opens a block, then the arguments follow in pieces or as one."""
        match event:
            case types.ToolCallStarted():
                id = prefixed(event.id, "toolu_")
                yield from self._open({"type": "tool_use", "id": id, "name": event.name, "input": {}})
                self._written = False
            case types.ToolCallDelta():
                self._written = True
                yield self._delta(type="input_json_delta", partial_json=event.text)
            case types.ToolCallFinished():
                if not self._written:
                    arguments = arguments_text(event.call)
                    yield self._delta(type="input_json_delta", partial_json=arguments)
                yield from self._close()

    def _server_call(self, event: types.ToolStarted) -> Iterator[Frame]:
        """Yield the frames of a call that the server makes."""
        if event.search:
            self._started[event.id] = event
        yield from self._open((web_search if event.search else mcp).use_block(event))
        yield self._delta(type="input_json_delta", partial_json=compact(event.arguments))
        yield from self._close()

    def _result(self, event: types.ToolEnded) -> dict[str, JSONValue]:
        started = self._started.get(event.id)
        if started is None:
            return mcp.result_block(event)
        self._pages.append(event)
        return web_search.result_block(started, event)

    def _cited(self) -> Iterator[Frame]:
        """Yield the citations of the open text."""
        pages = numbered(self._pages)
        for one in web_search.citations("".join(self._text_block), pages):
            yield self._delta(type="citations_delta", citation=one)
        self._text_block = []

    def _open(self, block: dict[str, JSONValue]) -> tuple[Frame, ...]:
        """Close the open block and open this one at the next index."""
        closing = tuple(self._close())
        self._index += 1
        self._block = str(block["type"])
        return (*closing, _event("content_block_start", index=self._index, content_block=block))

    def _close(self) -> Iterator[Frame]:
        if self._block == "thinking":
            yield self._delta(type="signature_delta", signature=_signature(self._context))
        if self._block == "text" and self._pages:
            yield from self._cited()
        if self._block:
            self._block = ""
            yield _event("content_block_stop", index=self._index)

    def _delta(self, **delta: JSONValue) -> Frame:
        return Frame(
            event="content_block_delta",
            data={"type": "content_block_delta", "index": self._index, "delta": delta},
        )

    def _completed(self, event: types.Completed) -> tuple[Frame, ...]:
        delta: JSONValue = {
            "stop_reason": stop_reason(self._last.reason),
            "stop_sequence": self._last.stop_sequence,
        }
        return (
            _event("message_delta", delta=delta, usage=_used(event.usage)),
            _event("message_stop"),
        )

    def fail(self, error: MullamaError) -> Iterable[Frame]:
        if self._ended:
            return ()
        self._ended = True
        return (Frame(event="error", data=envelope(error, f"req_{self._context.id}")),)

    def ping(self) -> Iterable[Frame]:
        return (_PING,)


def _event(name: str, **data: JSONValue) -> Frame:
    return Frame(event=name, data={"type": name, **data})


_BLOCK_KINDS = (
    "text", "thinking", "tool_use", "mcp_tool_use", "mcp_tool_result", "server_tool_use", "web_search_tool_result",
    "web_fetch_tool_result",
)  # fmt: skip
RESPONSE_SCHEMA = schema.exact(
    id=schema.STRING,
    type=schema.constant("message"),
    role=schema.constant("assistant"),
    model=schema.STRING,
    content=schema.listed(schema.record("type", type=schema.one_of(*_BLOCK_KINDS))),
    stop_reason=schema.one_of("end_turn", "stop_sequence", "max_tokens", "tool_use", "pause_turn"),
    stop_sequence=schema.nullable(schema.STRING),
    usage=schema.exact(
        input_tokens=schema.COUNT,
        cache_creation_input_tokens=schema.COUNT,
        cache_read_input_tokens=schema.COUNT,
        output_tokens=schema.COUNT,
    ),
)
COUNT_SCHEMA = schema.exact(input_tokens=schema.COUNT)
