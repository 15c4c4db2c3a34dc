"""The reader of the harmony format, where each message names its channel and a call its recipient."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.char_stream import CharStream, ParserRun, Reading, overlap, without_begun
from mullama.chat.reader.json_text import copy_object
from mullama.chat.types import Event, TextDelta, ThinkingDelta, TokenLogprob, Tool

_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_HEADER = re.compile(r"(?:assistant)?(?:\s*t?o?|\s*to=[^\s<]*)\s*(?:<(?:\|.*)?)?", re.DOTALL)
_MAX_HEADER = 512


class ChannelReader:
    """Reads header, body and end of each message; the header determines the meaning of the body."""

    def __init__(self, new_id: Callable[[], str], tools: Mapping[str, Tool], choice: int) -> None:
        self._sink = CallEvents(new_id, tools, choice)
        self._tools = tools
        self._choice = choice
        self._text = ""
        self._mode = "header"
        self._header = ""
        self._machine: ParserRun | None = None
        self._events: list[Event] = []
        self._logprobs: list[TokenLogprob] = []

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> tuple[Event, ...]:
        """See `Reader`."""
        self._logprobs.extend(logprobs)
        self._text += text
        while self._text and self._step(last=False):
            pass
        if self._mode not in ("text", "thinking"):
            self._logprobs.clear()  # they belong to what is not shown
        return self._take()

    def finish(self, *, cut: bool = False) -> tuple[Event, ...]:
        """See `Reader`."""
        if cut and self._machine is None and self._mode != "header":
            self._text = without_begun(self._text, _ENDS)
        while True:
            while self._text and self._step(last=True):
                pass
            if self._machine is None:
                break
            self._settle(self._machine.end(cut=cut), forget=cut)
        return self._take()

    def _step(self, *, last: bool) -> bool:
        if self._machine is not None:
            rest = self._machine.feed(self._text)
            self._text = ""
            self._settle(rest)
            return True
        if self._mode == "header":
            return self._read_header(last=last)
        return self._read_body(last=last)

    def _read_header(self, *, last: bool) -> bool:
        found = self._text.find(_MESSAGE)
        size = found + 2 if found >= 0 else max(0, len(self._text) - len(_MESSAGE))
        shown = self._text[: found + 2] if found >= 0 else self._text
        if not _may_be_header(shown.lstrip()) or size > _MAX_HEADER:
            self._header, self._mode = "", "text"  # the model just spoke
            return True
        if found >= 0:
            self._header = self._text[:found]
            self._text = self._text[found + len(_MESSAGE) :]
            self._open_body()
            return True
        if last:
            self._text = ""  # a header that was cut off says nothing
        return False

    def _open_body(self) -> None:
        recipient = _RECIPIENT.search(self._header)
        if recipient and self._tools:
            tape = CharStream()
            reading = _call(tape, self._sink, recipient[1])
            self._machine = ParserRun(tape, reading, self._header + _MESSAGE)
            self._mode = "skip"
        elif "analysis" in self._header:
            self._mode = "thinking"
        else:
            self._mode = "text"

    def _read_body(self, *, last: bool) -> bool:
        hits = [(self._text.find(mark), mark) for mark in _ENDS if mark in self._text]
        if hits:
            found, mark = min(hits)
            self._emit(self._text[:found])
            rest = self._text[found + len(mark) :]
            self._text = mark + rest if mark == "<|channel|>" else rest
            self._mode = "header"
            return True
        keep = 0 if last else max(overlap(self._text, mark) for mark in _ENDS)
        cut = len(self._text) - keep
        self._emit(self._text[:cut])
        self._text = self._text[cut:]
        return False

    def _settle(self, rest: str, *, forget: bool = False) -> None:
        """Take the events of the parser, and drop it at its end; `forget` drops the text that it has read too."""
        machine = self._machine
        assert machine is not None
        self._events.extend(self._sink.take())
        if machine.failed:
            self._machine = None
            if self._sink.cut():
                self._events.extend(self._sink.take())  # the rest of the message is skipped
            elif not forget:
                self._mode = "text"
                self._emit(machine.raw)
        elif machine.done:
            self._machine = None
        self._text = rest + self._text

    def _emit(self, text: str) -> None:
        if not text or self._mode == "skip":
            return
        if self._mode == "thinking":
            self._events.append(ThinkingDelta(text=text, choice=self._choice, logprobs=tuple(self._logprobs)))
        else:
            self._events.append(TextDelta(text=text, choice=self._choice, logprobs=tuple(self._logprobs)))
        self._logprobs.clear()

    def _take(self) -> tuple[Event, ...]:
        events = tuple(self._events)
        self._events.clear()
        return events


def _may_be_header(text: str) -> bool:
    """Return True if the text is a header or a possible beginning of one."""
    return _HEADER.fullmatch(text) is not None or any(mark.startswith(text) for mark in ("assistant", "to="))


def _call(tape: CharStream, sink: CallEvents, name: str) -> Reading[None]:
    yield from copy_object(tape, lambda: sink.start(name), sink.write)
    sink.finish()
