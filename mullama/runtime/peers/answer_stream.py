"""The stream of an OpenAI completion as the events of a conversation. Pure: it takes the bytes as they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from mullama.chat import types as chat
from mullama.codec import from_json
from mullama.errors import Invalid, Unavailable
from mullama.struct import Struct, field

_LONGEST_EVENT = 16 * 1024**2
_REASONS = {
    "length": chat.StopReason.LENGTH,
    "tool_calls": chat.StopReason.TOOL_CALLS,
    "function_call": chat.StopReason.TOOL_CALLS,
}


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Chosen(Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    """Of a completion without messages."""
    finish_reason: str | None = None
    logprobs: Any = None


class _Details(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Counted(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Chunk(Struct):
    choices: list[_Chosen] = field(default_factory=list)
    usage: _Counted | None = None
    error: Any = None


class _OpenCall(Struct):
    """A tool call whose arguments arrive."""

    id: str
    name: str
    arguments: str = ""


class AnswerStream:
    """Reads one answer. `complete` is True after its last event.

    new_id: returns the id of a tool call that the peer gave none. name: of the peer, for errors.
    """

    def __init__(self, name: str, new_id: Callable[[], str]) -> None:
        self._name, self._new_id = name, new_id
        self._rest = b""
        self._started = False
        self._calls: dict[tuple[int, int], _OpenCall] = {}
        self._finished: set[int] = set()
        self.usage = chat.Usage()
        self.complete = False
        self._pieces = 0

    def feed(self, data: bytes) -> Sequence[chat.Event]:
        """Return the events of further bytes. Raises `Unavailable` for a stream that is none of OpenAI's."""
        self._rest += data
        if len(self._rest) > _LONGEST_EVENT:
            raise Unavailable(f"peer {self._name} sent an event of more than {_LONGEST_EVENT} bytes")
        found: list[chat.Event] = []
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._line(line[5:].strip(), found)
        return found

    def end(self, timings: chat.Timings) -> Sequence[chat.Event]:
        """Return the last events. Raises `Unavailable` for a stream that ended before its answer did."""
        found = list(self.feed(b"\n"))
        if not self._finished or self._calls:
            raise Unavailable(f"peer {self._name} ended its answer early", hint="send the request again")
        self.complete = True
        return [*found, chat.Completed(usage=self.usage, timings=timings)]

    def _line(self, data: bytes, found: list[chat.Event]) -> None:
        if not data or data == b"[DONE]":
            return
        try:
            chunk = from_json(_Chunk, data, "chunk")
        except Invalid as error:
            raise Unavailable(
                f"peer {self._name} sent an event that is not of OpenAI's API: {error.message}"
            ) from error
        if chunk.error is not None:
            raise Unavailable(f"peer {self._name}: {error_text(chunk.error)}")
        if not self._started:
            self._started = True
            found.append(chat.Started(prompt_tokens=0))
        for chosen in chunk.choices:
            self._choice(chosen, found)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)

    def _choice(self, chosen: _Chosen, found: list[chat.Event]) -> None:
        number, delta = chosen.index, chosen.delta or _Delta()
        thinking = delta.reasoning_content or delta.reasoning
        if thinking:
            found.append(chat.ThinkingDelta(text=thinking, choice=number))
        text = delta.content or delta.refusal or chosen.text
        logprobs = _logprobs(chosen.logprobs)
        if text or logprobs:
            found.append(chat.TextDelta(text=text or "", choice=number, logprobs=logprobs))
        for piece in delta.tool_calls or ():
            self._call(number, piece, found)
        if thinking or text or delta.tool_calls:
            self._pieces += 1
            if not self.usage.completion_tokens or not chosen.finish_reason:
                self.usage = chat.Usage(completion_tokens=self._pieces)  # an estimate until the peer counts
        if chosen.finish_reason and number not in self._finished:
            self._finish(number, chosen.finish_reason, found)

    def _call(self, number: int, piece: _Call, found: list[chat.Event]) -> None:
        key, function = (number, piece.index), piece.function or _Function()
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _OpenCall(piece.id or self._new_id(), function.name or "")
            found.append(chat.ToolCallStarted(index=piece.index, id=call.id, name=call.name, choice=number))
        if function.arguments:
            call.arguments += function.arguments
            found.append(chat.ToolCallDelta(index=piece.index, text=function.arguments, choice=number))

    def _finish(self, number: int, reason: str, found: list[chat.Event]) -> None:
        for (choice, index), call in sorted(self._calls.items(), key=lambda item: item[0]):
            if choice == number:
                done = chat.ToolCall(id=call.id, name=call.name, arguments=_arguments(call.arguments))
                found.append(chat.ToolCallFinished(index=index, call=done, choice=number))
                del self._calls[choice, index]
        self._finished.add(number)
        found.append(chat.Finished(reason=_REASONS.get(reason, chat.StopReason.STOP), choice=number))


def error_text(error: Any) -> str:
    """Return the message of an error object of OpenAI's API."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("error") or error
    return str(error)[:500]


def _arguments(text: str) -> Any:
    """Return the arguments as an object; the text where it is none."""
    try:
        read = json.loads(text or "{}")
    except ValueError:
        return text
    return read if isinstance(read, dict) else text


def _usage(counted: _Counted) -> chat.Usage:
    prompt, completion = counted.prompt_tokens_details, counted.completion_tokens_details
    return chat.Usage(
        prompt_tokens=counted.prompt_tokens or 0,
        cached_tokens=(prompt.cached_tokens if prompt else 0) or 0,
        completion_tokens=counted.completion_tokens or 0,
        reasoning_tokens=(completion.reasoning_tokens if completion else 0) or 0,
    )


def _logprobs(tree: Any) -> tuple[chat.TokenLogprob, ...]:
    """Return the probabilities of a chunk: those of a conversation; a completion's older form has none here."""
    content = tree.get("content") if isinstance(tree, dict) else None
    if not isinstance(content, list):
        return ()
    return tuple(_token(item, tuple(_token(top, ()) for top in item.get("top_logprobs") or ())) for item in content)


def _token(tree: dict[str, Any], top: tuple[chat.TokenLogprob, ...]) -> chat.TokenLogprob:
    text = str(tree.get("token", ""))
    raw = tree.get("bytes")
    data = bytes(raw) if isinstance(raw, list) else text.encode("utf-8", "surrogatepass")
    number = tree.get("logprob")
    return chat.TokenLogprob(
        id=-1,
        text=text,
        bytes=data,
        logprob=float(number) if isinstance(number, int | float) else float("nan"),
        top=top,
    )
