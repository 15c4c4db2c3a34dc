"""OpenAI's chat completion object, and its stream of chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from mullama.chat import types
from mullama.chat.answer import Fold
from mullama.chat.citations import numbered, pages_of
from mullama.dialects import schema
from mullama.dialects.base import Frame, Reply, ReplyContext, StreamEvent
from mullama.dialects.openai import native_form
from mullama.dialects.openai.chat import ChatCall
from mullama.dialects.openai.streams import DONE, EventStream
from mullama.dialects.openai.usage import (
    USAGE_SCHEMA,
    fingerprint,
    finish_reason,
    timings_of,
    usage_of,
)
from mullama.dialects.openai.web_search import chat_annotations
from mullama.dialects.reply_values import logprob_entries, prefixed
from mullama.dialects.tools import arguments_text
from mullama.names import JSONValue
from mullama.struct import replace

_OPEN, _CLOSE = "<think>", "</think>"


def _head(context: ReplyContext[ChatCall, Any], kind: str) -> dict[str, JSONValue]:
    return {
        "id": f"chatcmpl-{context.id}",
        "object": kind,
        "created": int(context.created),
        "model": context.operation.model,
        "system_fingerprint": fingerprint(context.version),
    }


def _probabilities(operation: ChatCall, tokens: tuple[types.TokenLogprob, ...]) -> JSONValue:
    """Return the probabilities of tokens; those after sampling are in llama-server's form."""
    if not tokens:
        return None
    if operation.post_sampling:
        return {"content": native_form.probabilities(tokens, post_sampling=True), "refusal": None}
    return {"content": logprob_entries(tokens), "refusal": None}


def _call(call: types.ToolCall) -> dict[str, JSONValue]:
    return {
        "id": prefixed(call.id, "call_"),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments_text(call)},
    }


def _reasoning(text: str) -> dict[str, JSONValue]:
    """Return the thinking under both names that clients read."""
    return {"reasoning_content": text, "reasoning": text} if text else {}


def _calls(operation: ChatCall, choice: types.Choice) -> dict[str, JSONValue]:
    if not choice.tool_calls:
        return {}
    if operation.old_functions:
        return {"function_call": _call(choice.tool_calls[0])["function"]}
    return {"tool_calls": [_call(call) for call in choice.tool_calls]}


def _message(operation: ChatCall, choice: types.Choice) -> dict[str, JSONValue]:
    inline = operation.inline_thinking and choice.thinking
    text = f"{_OPEN}{choice.thinking}{_CLOSE}{choice.text}" if inline else choice.text
    return {
        "role": "assistant",
        "content": None if choice.tool_calls and not text else text,
        "refusal": None,
        "annotations": chat_annotations(text, pages_of(choice.parts)),
        **(_reasoning(choice.thinking) if operation.separate_thinking else {}),
        **_calls(operation, choice),
    }


def _calls_reason(operation: ChatCall) -> str:
    return "function_call" if operation.old_functions else "tool_calls"


def encode(context: ReplyContext[ChatCall, Any]) -> Reply:
    """Return the complete answer as one object."""
    choices: list[JSONValue] = [
        {
            "index": choice.index,
            "message": _message(context.operation, choice),
            "logprobs": _probabilities(context.operation, choice.logprobs),
            "finish_reason": finish_reason(choice.reason, _calls_reason(context.operation)),
        }
        for choice in context.result.choices
    ]
    return Reply(
        body={
            **_head(context, "chat.completion"),
            "choices": choices,
            "usage": usage_of(context.result.usage),
            "timings": timings_of(context.result.usage, context.result.timings),
            **native_form.verbose(context.operation, context.result, context.context_size),
        }
    )


class ChatChunkStream(EventStream):
    """Writes chunks: role, deltas, reason of the end, counts if requested, `[DONE]`."""

    def __init__(self, context: ReplyContext[ChatCall, None]) -> None:
        self._operation = context.operation
        usage: dict[str, JSONValue] = {"usage": None} if context.operation.include_usage else {}
        self._head = {**_head(context, "chat.completion.chunk"), **usage}
        self._joints = defaultdict[int, types.PieceJoiner](types.PieceJoiner)
        self._inside: set[int] = set()  # choices with an open thinking tag in the text
        self._written: set[tuple[int, int]] = set()  # calls whose arguments were streamed
        self._open = context.operation.n
        self._last: types.Finished | None = None
        self._extras = native_form.StreamExtras(context.operation, context.context_size)
        self._context: ReplyContext[ChatCall, Any] = context
        self._fold = Fold() if context.operation.store else None
        self._written_text: list[str] = []
        self._keeps_text = context.operation.n == 1
        self._pages: list[types.ToolEnded] = []  # the results of searches

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        if self._fold is not None and isinstance(event, types.Event):
            self._fold.feed(event)
        match event:
            case types.TextDelta():
                return (self._text(event.choice, self._joints[event.choice].piece(event.text), event.logprobs),)
            case types.ThinkingDelta():
                return (self._thinking(event),)
            case types.ToolCallStarted() | types.ToolCallDelta() | types.ToolCallFinished():
                return self._tool(event)
            case types.ToolStarted():
                self._joints[0].call()
                return ()
            case types.ToolEnded() if event.citations:
                self._pages.append(event)
                return ()
            case types.Generated():
                self._extras.note(event)
                return ()
            case types.Started():
                self._extras.note(event)
                role: dict[str, JSONValue] = {"role": "assistant", "content": ""}
                return tuple(self._chunk(i, role) for i in range(self._operation.n))
            case types.PromptProgress() if self._operation.progress:
                return (self._progress(event),)
            case types.Finished():
                return self._finished(event)
            case types.Completed() if not self._ended:
                self._ended = True
                return self._completed(event)
            case _:
                return ()

    def _chunk(
        self,
        choice: int,
        delta: dict[str, JSONValue],
        reason: str | None = None,
        tokens: tuple[types.TokenLogprob, ...] = (),
        more: dict[str, JSONValue] | None = None,
    ) -> Frame:
        one: JSONValue = {
            "index": choice,
            "delta": delta,
            "logprobs": _probabilities(self._operation, tokens),
            "finish_reason": reason,
        }
        timings = self._extras.timings(choice)
        return Frame(data={**self._head, "choices": [one], **timings, **(more or {})})

    def _text(self, choice: int, text: str, tokens: tuple[types.TokenLogprob, ...]) -> Frame:
        if choice in self._inside:
            self._inside.discard(choice)
            text = _CLOSE + text
        self._note(choice, text)
        return self._chunk(choice, {"content": text}, tokens=tokens)

    def _thinking(self, event: types.ThinkingDelta) -> Frame:
        text = self._joints[event.choice].piece(event.text, thinking=True)
        separate = _reasoning(text) if self._operation.separate_thinking else {}
        if not self._operation.inline_thinking:
            return self._chunk(event.choice, separate, tokens=event.logprobs)
        opening = "" if event.choice in self._inside else _OPEN
        self._inside.add(event.choice)
        self._note(event.choice, opening + text)
        return self._chunk(event.choice, {"content": opening + text, **separate}, tokens=event.logprobs)

    def _note(self, choice: int, text: str) -> None:
        """Keep the text of an answer with calls of this server, which may name pages; it has one choice."""
        if choice == 0 and self._keeps_text:
            self._written_text.append(text)

    def _tool(self, event: types.ToolCallStarted | types.ToolCallDelta | types.ToolCallFinished) -> tuple[Frame, ...]:
        """Return the frames of a call: the name, then the arguments in pieces or as one."""
        match event:
            case types.ToolCallStarted():
                self._joints[event.choice].call()
                function: JSONValue = {"name": event.name, "arguments": ""}
                first = {"id": prefixed(event.id, "call_"), "type": "function"}
                return (self._call(event.choice, event.index, first, function),)
            case types.ToolCallDelta():
                self._written.add((event.choice, event.index))
                return (self._call(event.choice, event.index, {}, {"arguments": event.text}),)
            case types.ToolCallFinished():
                if (event.choice, event.index) in self._written:
                    return ()
                arguments: JSONValue = {"arguments": arguments_text(event.call)}
                return (self._call(event.choice, event.index, {}, arguments),)

    def _call(self, choice: int, index: int, first: dict[str, str], function: JSONValue) -> Frame:
        if self._operation.old_functions:
            return self._chunk(choice, {"function_call": function})
        return self._chunk(choice, {"tool_calls": [{"index": index, **first, "function": function}]})

    def _progress(self, event: types.PromptProgress) -> Frame:
        role: dict[str, JSONValue] = {"role": "assistant", "content": None}
        return self._chunk(event.choice, role, more=self._extras.progress(event))

    def _finished(self, event: types.Finished) -> tuple[Frame, ...]:
        """Return the end of a choice. The last choice waits for the timings, which its chunk contains."""
        self._open -= 1
        if self._open > 0:
            return (*self._closing(event), self._end(event, self._extras.verbose(event, None)))
        self._last = event
        return tuple(self._closing(event))

    def _closing(self, event: types.Finished) -> Iterator[Frame]:
        if event.choice in self._inside:
            yield self._text(event.choice, "", ())
        pages = numbered(self._pages)
        if found := chat_annotations("".join(self._written_text), pages):
            yield self._chunk(event.choice, {"annotations": found})

    def _end(self, event: types.Finished, more: dict[str, JSONValue]) -> Frame:
        reason = finish_reason(event.reason, _calls_reason(self._operation))
        return self._chunk(event.choice, {}, reason, more=more)

    def _completed(self, event: types.Completed) -> tuple[Frame, ...]:
        """Return the last choice's end and the counts; the last chunk has the timings."""
        if self._fold is not None:
            self.whole = encode(replace(self._context, result=self._fold.answer)).body
        timings: dict[str, JSONValue] = {"timings": timings_of(event.usage, event.timings)}
        usage, frames = self._operation.include_usage, []
        if self._last is not None:
            more = self._extras.verbose(self._last, event)
            frames.append(self._end(self._last, more if usage else {**more, **timings}))
        if usage:
            counts: dict[str, JSONValue] = {**self._head, "choices": [], "usage": usage_of(event.usage)}
            frames.append(Frame(data={**counts, **timings}))
        return (*frames, DONE)


_MESSAGE_SCHEMA = schema.record(
    "role content refusal",
    role=schema.constant("assistant"),
    content=schema.nullable(schema.STRING),
    refusal=schema.NULL,
    reasoning_content=schema.STRING,
    tool_calls=schema.listed(
        schema.exact(
            id=schema.STRING,
            type=schema.constant("function"),
            function=schema.exact(name=schema.STRING, arguments=schema.STRING),
        )
    ),
)
RESPONSE_SCHEMA = schema.record(
    "id object created model choices usage",
    id=schema.STRING,
    object=schema.constant("chat.completion"),
    created=schema.COUNT,
    model=schema.STRING,
    choices=schema.listed(
        schema.exact(
            index=schema.COUNT,
            message=_MESSAGE_SCHEMA,
            logprobs=schema.nullable(schema.RECORD),
            finish_reason=schema.one_of("stop", "length", "tool_calls", "function_call"),
        )
    ),
    usage=USAGE_SCHEMA,
    timings=schema.RECORD,
)
