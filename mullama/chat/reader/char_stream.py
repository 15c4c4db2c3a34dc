"""Single characters for parsers that are coroutines: a parser reads as from a string, and is fed in pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, str, T]
"""A parse in progress: it yields when it needs the next character ("" at the end) and returns a T."""

SPACES = frozenset(" \t\r\n")


class Malformed(Exception):
    """The text does not match the syntax of the parser; its characters are ordinary text."""


class CharStream:
    """The character source of a parser; `peek` suspends the parser until the next piece."""

    __slots__ = ("_again", "_ahead", "cut")

    def __init__(self) -> None:
        self.cut = False  # a limit ended the text
        self._ahead: str | None = None
        self._again: list[str] = []  # characters that were put back, the next one last

    @property
    def untaken(self) -> str:
        """The characters that were sent and are not taken."""
        return (self._ahead or "") + "".join(reversed(self._again))

    def peek(self) -> Reading[str]:
        """Return the next character without taking it; "" at the end of the text."""
        if self._ahead is None:
            self._ahead = self._again.pop() if self._again else (yield)
        return self._ahead

    def take(self) -> Reading[str]:
        """Return and take the next character; "" at the end."""
        char = yield from self.peek()
        if char:
            self._ahead = None
        return char

    def put_back(self, text: str) -> None:
        """Make the last characters that were taken available once more."""
        self._again += [*(self._ahead or ""), *reversed(text)]
        self._ahead = None

    def spaces(self) -> Reading[None]:
        """Skip white space."""
        while (yield from self.peek()) in SPACES:
            yield from self.take()

    def expect(self, text: str) -> Reading[None]:
        """Take `text`. White space before it and inside it may have any length, including none."""
        yield from self.spaces()
        for char in text.strip():
            if char in SPACES:
                yield from self.spaces()
            elif (yield from self.peek()) == char:
                yield from self.take()
            else:
                raise Malformed

    def choose(self, *marks: str) -> Reading[int]:
        """Take one of `marks` and return its index; return -1 and take nothing when none begins here."""
        yield from self.spaces()
        alive = {place: mark.strip() for place, mark in enumerate(marks)}
        begun = False
        while any(alive.values()):
            char = yield from self.peek()
            further = {place: rest[1:] for place, rest in alive.items() if char and rest[:1] == char}
            if not further:
                break
            yield from self.take()
            alive, begun = further, True
        done = [place for place, rest in alive.items() if not rest]
        if begun and not done:
            raise Malformed
        return done[0] if begun else -1

    def until(self, stops: str, limit: int = 256) -> Reading[str]:
        """Return the text before the first character of `stops`, which is not taken; bounded."""
        taken: list[str] = []
        while (char := (yield from self.peek())) and char not in stops:
            taken.append((yield from self.take()))
            if len(taken) > limit:
                raise Malformed
        return "".join(taken)

    def past(self, mark: str, out: Callable[[str], None]) -> Reading[bool]:
        """Write the text before `mark` to the output and take the mark; return False when the text ends first.

        A mark that has begun in a text that a limit cut is not written.
        """
        held = ""
        while char := (yield from self.take()):
            held += char
            if held.endswith(mark):
                out(held[: -len(mark)])
                return True
            keep = overlap(held, mark)
            out(held[: len(held) - keep])
            held = held[len(held) - keep :]
        out(without_begun(held, (mark,)) if self.cut else held)
        return False


def overlap(text: str, mark: str) -> int:
    """Return how many characters at the end of `text` may begin `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


def without_begun(text: str, marks: Iterable[str], *, alone: bool = False) -> str:
    """Return a text that a limit cut without a mark that has begun, and without the white space before it.

    A letter or a single character may be text. alone: a single character is the mark if nothing else is pending.
    """
    begun = max((overlap(text, mark) for mark in marks if mark and not mark[0].isalnum()), default=0)
    certain = begun > 1 or (alone and begun and len(text.strip()) == begun)
    return text[: len(text) - begun].rstrip() if certain else text


class ParserRun:
    """Runs one parser over text that arrives in pieces, and records the characters that it consumed."""

    def __init__(self, tape: CharStream, reading: Reading[None], raw: str) -> None:
        self._tape = tape
        self._reading = reading
        self._raw = [raw]
        self.done = False
        self.failed = False
        self.fruitful = False
        next(reading, None)

    @property
    def raw(self) -> str:
        """The characters consumed since the last `forget`."""
        return "".join(self._raw)

    def forget(self) -> None:
        """Drop the record: the consumed characters are in events."""
        self.fruitful = True
        self._raw = list(self._tape.untaken)

    def feed(self, text: str) -> str:
        """Consume `text`; return the rest after the end of the parser."""
        for position, char in enumerate(text):
            self._raw.append(char)
            if not self._send(char):
                return self._untaken() + text[position + 1 :]
        return ""

    def end(self, *, cut: bool = False) -> str:
        """End the text; return the rest after the end of the parser. cut: see `Reader.finish`."""
        self._tape.cut = cut
        while not (self.done or self.failed):
            self._send("")
        return self._untaken()

    def _untaken(self) -> str:
        """Return the characters that the parser has left, and drop them from the record."""
        untaken = self._tape.untaken
        for _ in untaken:
            self._raw.pop()
        return untaken

    def _send(self, char: str) -> bool:
        try:
            self._reading.send(char)
        except StopIteration:
            self.done = True
        except Malformed:
            self.failed = True
        return not (self.done or self.failed)
