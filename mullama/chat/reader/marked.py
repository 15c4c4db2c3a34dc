"""The reader of families whose calls and reasoning are between marks in one stream of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mullama.chat.families import Family
from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.calls import read_bare, read_calls
from mullama.chat.reader.char_stream import SPACES, CharStream, ParserRun, overlap, without_begun
from mullama.chat.syntax import closing, openings
from mullama.chat.types import Event, TextDelta, ThinkingDelta, TokenLogprob, Tool

# Text that may precede a call without a mark.
_FENCES = ("```json", "```tool_call", "```")


class PlainReader:
    """Reads text until a mark, then reasoning or calls, then text again."""

    def __init__(
        self,
        family: Family,
        new_id: Callable[[], str],
        tools: Mapping[str, Tool],
        *,
        open_think: bool,
        choice: int,
    ) -> None:
        self._calls = family.calls
        self._thinking = family.thinking
        self._choice = choice
        self._sink = CallEvents(new_id, tools, choice)
        self._openings = openings(family.calls) if tools else ()
        self._bare = bool(tools)
        self._inside = open_think and family.thinking is not None
        self._fresh = True  # nothing visible was written yet
        self._trim = self._inside  # white space is swallowed until something else comes
        self._machine: ParserRun | None = None
        self._marked = False  # a mark announced the call that is being read
        self._skip = ""  # the mark that ends a malformed call
        self._text = ""
        self._events: list[Event] = []
        self._logprobs: list[TokenLogprob] = []

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> tuple[Event, ...]:
        """See `Reader`; logprobs travel with the next text or reasoning."""
        self._logprobs.extend(logprobs)
        self._text += text
        while self._text and self._step(last=False):
            pass
        if self._machine is not None:
            self._logprobs.clear()  # they belong to a call
        return self._take()

    def finish(self, *, cut: bool = False) -> tuple[Event, ...]:
        """See `Reader`."""
        if cut and self._machine is None:
            marks = self._expected_marks()
            alone = self._trim or (self._fresh and not self._inside and self._thinking is not None)
            self._text = without_begun(self._text, marks, alone=alone)
        while True:
            while self._text and self._step(last=True):
                pass
            if (machine := self._machine) is None:
                break
            rest = machine.end(cut=cut)
            unread = machine.failed and self._sink.is_open
            unnamed = machine.failed and cut and (self._marked or machine.fruitful)
            self._settle("" if unread or unnamed else rest, forget=unnamed)
        return self._take()

    def _expected_marks(self) -> tuple[str, ...]:
        """Return the marks that may begin in the pending text."""
        if self._skip:
            return (self._skip, *self._openings)
        if self._thinking is None or not (self._inside or self._fresh):
            return self._openings
        return (self._thinking.close.strip(),) if self._inside else (*self._openings, self._thinking.open.strip())

    def _step(self, *, last: bool) -> bool:
        """Handle the certain part of the pending text; return False when nothing is certain."""
        if self._machine is not None:
            rest = self._machine.feed(self._text)
            self._text = ""
            self._settle(rest)
            return True
        if self._inside:
            return self._think(last=last)
        if self._skip:
            return self._skip_call(last=last)
        return self._say(last=last)

    def _skip_call(self, *, last: bool) -> bool:
        """Drop the rest of a call with malformed arguments, if its closing mark follows."""
        before, mark, after = self._text.partition(self._skip)
        if not mark and not last:
            return False
        self._text, self._skip = (after if mark else before), ""
        return True

    def _think(self, *, last: bool) -> bool:
        assert self._thinking is not None
        mark = self._thinking.close.strip()
        found = self._text.find(mark)
        if found >= 0:
            self._emit_thought(self._text[:found].rstrip())
            self._text = self._text[found + len(mark) :]
            self._inside, self._trim = False, True
            return True
        keep = 0 if last else _held(self._text, (mark,))
        return self._pass(keep, self._emit_thought, last=last)

    def _say(self, *, last: bool) -> bool:
        if self._fresh or self._trim:
            waiting = self._at_beginning(last=last)
            if waiting is not None:
                return waiting
        found, mark = _first(self._text, self._openings)
        if mark:
            self._emit_text(self._text[:found].rstrip())
            self._text = self._text[found + len(mark) :]
            self._begin(mark)
            return True
        keep = 0 if last else _held(self._text, self._openings)
        return self._pass(keep, self._emit_text, last=last)

    def _at_beginning(self, *, last: bool) -> bool | None:
        """Handle reasoning, or a call without a mark, at the beginning of an answer; return None for neither."""
        text = self._text.lstrip()
        opening = self._thinking.open.strip() if self._thinking and self._fresh else ""
        if not text:
            return False if not last else self._drop_or_say()
        if opening and text.startswith(opening):
            self._text = text[len(opening) :]
            self._inside = self._trim = True
            return True
        if opening and not last and opening.startswith(text):
            return False
        if self._bare:
            waiting = self._bare_call(text, last=last)
            if waiting is not None:
                return waiting
        if self._trim:
            self._text = text
        self._fresh = self._trim = False
        return None

    def _bare_call(self, text: str, *, last: bool) -> bool | None:
        """Handle a call that begins the answer with a brace, or with a code fence and a brace."""
        if any(text.startswith(mark) or mark.startswith(text) for mark in self._openings):
            return None if last or any(text.startswith(m) for m in self._openings) else False
        for fence in _FENCES:
            if not last and len(text) <= len(fence) and fence.startswith(text):
                return False
        fence = next((fence for fence in _FENCES if text.startswith(fence)), "")
        body = text[len(fence) :].lstrip()
        if not body and not last:
            return False
        if body[:1] not in ("{", "["):
            return None
        whole = text if self._trim else self._text
        tape = CharStream()
        reading = read_bare(tape, self._sink, self._calls, fenced=bool(fence))
        self._marked = False
        self._start(ParserRun(tape, reading, whole[: len(whole) - len(body)]))
        self._text = body
        return True

    def _drop_or_say(self) -> bool:
        """Handle text that ends in nothing but white space."""
        if not self._trim:
            self._emit_text(self._text)
        self._text = ""
        return False

    def _pass(self, keep: int, emit: Callable[[str], None], *, last: bool) -> bool:
        """Emit all but the last `keep` characters."""
        cut = len(self._text) - keep
        text, self._text = self._text[:cut], self._text[cut:]
        if self._inside and last:
            text = text.rstrip()
        emit(text)
        return False

    def _begin(self, mark: str) -> None:
        tape = CharStream()
        self._marked = True
        self._start(ParserRun(tape, read_calls(tape, self._sink, self._calls, mark), mark))

    def _start(self, machine: ParserRun) -> None:
        self._machine = machine
        self._sink.on_finish = machine.forget
        self._fresh = False

    def _settle(self, rest: str, *, forget: bool = False) -> None:
        """Take the events of the parser, and drop it at its end; `forget` drops the text that it has read too."""
        machine = self._machine
        assert machine is not None
        self._events.extend(self._sink.take())
        if machine.failed:
            self._machine = None
            self._trim = machine.fruitful
            if self._sink.cut():
                self._events.extend(self._sink.take())
                self._trim, self._skip = True, closing(self._calls)
            elif forget:
                pass
            elif machine.fruitful:
                rest = machine.raw + rest  # not the end of a call, but perhaps the beginning of the next
            else:
                self._emit_text(machine.raw)
        elif machine.done:
            self._machine = None
            self._trim = True
        self._text = rest + self._text

    def _emit_text(self, text: str) -> None:
        if not text:
            return
        self._fresh = False
        self._events.append(TextDelta(text=text, choice=self._choice, logprobs=tuple(self._logprobs)))
        self._logprobs.clear()

    def _emit_thought(self, text: str) -> None:
        if self._trim:
            text = text.lstrip()
        if text:
            self._trim = False
            self._events.append(ThinkingDelta(text=text, choice=self._choice, logprobs=tuple(self._logprobs)))
            self._logprobs.clear()

    def _take(self) -> tuple[Event, ...]:
        events = tuple(self._events)
        self._events.clear()
        return events


def _first(text: str, marks: tuple[str, ...]) -> tuple[int, str]:
    """Return the earliest of `marks` in the text, the longest of several at one place; (-1, "") for none."""
    hits = [(text.find(mark), -len(mark), mark) for mark in marks if mark in text] if marks else ()
    if not hits:
        return -1, ""
    found, _, mark = min(hits)
    return found, mark


def _held(text: str, marks: tuple[str, ...]) -> int:
    """Return how many characters at the end may begin a mark, with the white space before them."""
    if not marks:
        return 0
    cut = len(text) - max(overlap(text, mark) for mark in marks)
    while cut > 0 and text[cut - 1] in SPACES:
        cut -= 1
    return len(text) - cut
