"""The stream of an OpenAI completion as the events of a conversation. Pure: it takes the bytes as they arrive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mullama.chat import types as chat
from mullama.codec import from_json
from mullama.errors import Invalid, Unavailable
from mullama.struct import Struct, replace

_LONGEST_EVENT = 16 * 1024**2
_LONGEST_ERROR = 64 * 1024
_REASONS = {
    "length": chat.StopReason.LENGTH,
    "tool_calls": chat.StopReason.TOOL_CALLS,
    "function_call": chat.StopReason.TOOL_CALLS,
}


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """Text by the API; some servers send the object."""


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Chosen(Struct):
    index: int | None = None
    delta: _Delta | None = None
    text: str | None = None
    """Of a completion without messages."""
    finish_reason: str | None = None
    logprobs: Any = None


class _Details(Struct):
    cached_tokens: int | float | None = None
    reasoning_tokens: int | float | None = None


class _Counted(Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Chunk(Struct):
    choices: list[_Chosen] | None = None
    usage: _Counted | None = None
    error: Any = None


class _OpenCall(Struct):
    """A tool call whose arguments arrive."""

    id: str
    name: str
    arguments: str = ""


class AnswerStream:
    """Reads one answer. `done` is True after the mark of its end, `complete` after its last event.

    new_id: returns the id of a tool call that the peer gave none. name: of the peer, for errors.
    """

    def __init__(self, name: str, new_id: Callable[[], str]) -> None:
        self._name, self._new_id = name, new_id
        self._rest: list[bytes] = []
        self._length = 0
        self._other = b""
        """The beginning of an answer that has no events: the JSON of an error, most of the time."""
        self._started = False
        self._now: dict[int, int] = {}
        """The index of the present tool call of each choice."""
        self._calls: dict[tuple[int, int], _OpenCall] = {}
        self._finished: set[int] = set()
        self.usage = chat.Usage()
        self.done = self.complete = False
        self._pieces = 0

    def feed(self, data: bytes) -> Sequence[chat.Event]:
        """Return the events of further bytes. Raises `Unavailable` for a stream that is none of OpenAI's."""
        self._rest.append(data)
        self._length += len(data)
        if self._length > _LONGEST_EVENT:
            raise Unavailable(f"peer {self._name} sent an event of more than {_LONGEST_EVENT} bytes")
        found: list[chat.Event] = []
        if b"\n" not in data:
            return found
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest, self._length = [rest], len(rest)
        for line in lines:
            if line.startswith(b"data:"):
                self._line(line[5:].strip(), found)
            elif not self._started and len(self._other) < _LONGEST_ERROR:
                self._other += line + b"\n"
        return found

    def end(self, timings: chat.Timings) -> Sequence[chat.Event]:
        """Return the last events. Raises `Unavailable` for a stream that ended before its answer did."""
        found = list(self.feed(b"\n"))
        if not self._finished or self._calls:
            if not self._started and (error := _error_of(self._other)) is not None:
                raise Unavailable(f"peer {self._name}: {error}")
            raise Unavailable(f"peer {self._name} ended its answer early", hint="send the request again")
        self.complete = True
        return [*found, chat.Completed(usage=self.usage, timings=timings)]

    def _line(self, data: bytes, found: list[chat.Event]) -> None:
        if not data or data == b"[DONE]":
            self.done = self.done or bool(data and self._finished)
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
        for chosen in chunk.choices or ():
            self._choice(chosen, found)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)

    def _choice(self, chosen: _Chosen, found: list[chat.Event]) -> None:
        number, delta = chosen.index or 0, chosen.delta or _Delta()
        thinking = delta.reasoning_content or delta.reasoning
        if thinking:
            found.append(chat.ThinkingDelta(text=thinking, choice=number))
        text = delta.content or delta.refusal or chosen.text
        logprobs = _logprobs(chosen.logprobs)
        if text or logprobs:
            found.append(chat.TextDelta(text=text or "", choice=number, logprobs=logprobs))
        for at, piece in enumerate(delta.tool_calls or ()):
            self._call(number, piece, at, found)
        if thinking or text or delta.tool_calls:
            self._pieces += 1
            if self.usage.completion_tokens < self._pieces:  # an estimate until the peer counts
                self.usage = replace(self.usage, completion_tokens=self._pieces)
        if chosen.finish_reason and number not in self._finished:
            self._finish(number, chosen.finish_reason, found)

    def _call(self, number: int, piece: _Call, at: int, found: list[chat.Event]) -> None:
        function = piece.function or _Function()
        index = self._index(number, piece, function, at)
        call = self._calls.get((number, index))
        if call is None:
            call = self._calls[number, index] = _OpenCall(piece.id or self._new_id(), function.name or "")
            found.append(chat.ToolCallStarted(index=index, id=call.id, name=call.name, choice=number))
        text = function.arguments
        if text:
            text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            call.arguments += text
            found.append(chat.ToolCallDelta(index=index, text=text, choice=number))

    def _index(self, number: int, piece: _Call, function: _Function, at: int) -> int:
        """Return the index of the call of a piece. at: its place among those of its event.

        Without one, a piece with another id, or with a name and no id, begins the next call.
        """
        now = self._now.get(number, -1)
        if piece.index is not None:
            now = piece.index
        else:
            call = self._calls.get((number, now))
            other = piece.id != call.id if call is not None and piece.id else bool(function.name)
            now += call is None or other
        self._now[number] = now
        return now

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


def _error_of(data: bytes) -> str | None:
    """Return the message of an error that is sent with the status of a success; None if it is none."""
    try:
        tree = json.loads(data)
    except ValueError:
        return None
    error = tree.get("error") if isinstance(tree, dict) else None
    return error_text(error) if error else None


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
        prompt_tokens=_count(counted.prompt_tokens),
        cached_tokens=_count(prompt.cached_tokens) if prompt else 0,
        completion_tokens=_count(counted.completion_tokens),
        reasoning_tokens=_count(completion.reasoning_tokens) if completion else 0,
    )


def _count(number: float | None) -> int:
    return max(0, int(number)) if number is not None else 0


def _logprobs(tree: Any) -> tuple[chat.TokenLogprob, ...]:
    """Return the probabilities of a chunk: those of a conversation; a completion's older form has none here."""
    content = tree.get("content") if isinstance(tree, dict) else None
    if not isinstance(content, list):
        return ()
    found = []
    for item in _maps(content):
        top = tuple(_token(other, ()) for other in _maps(item.get("top_logprobs")))
        found.append(_token(item, top))
    return tuple(found)


def _maps(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _token(tree: dict[str, Any], top: tuple[chat.TokenLogprob, ...]) -> chat.TokenLogprob:
    text = str(tree.get("token", ""))
    raw = tree.get("bytes")
    data = text.encode("utf-8", "surrogatepass")
    if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in raw):
        data = bytes(raw)
    number = tree.get("logprob")
    return chat.TokenLogprob(
        id=-1,
        text=text,
        bytes=data,
        logprob=float(number) if isinstance(number, int | float) else float("nan"),
        top=top,
    )
