"""Characters one at a time for coroutines that parse: written like a plain parser, fed in any pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, str, T]
"""A parse in progress: it yields when it needs the next character ("" at the end) and returns a T."""

SPACES = frozenset(" \t\r\n")


class Malformed(Exception):
    """The text is not what this parser reads; what it took is text after all."""


class CharStream:
    """The next character, waited for by whoever peeks first."""

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: str | None = None

    @property
    def untaken(self) -> str:
        """The last character that was sent, as long as nobody took it."""
        return self._ahead or ""

    def peek(self) -> Reading[str]:
        """The next character without taking it; "" at the end of the text."""
        if self._ahead is None:
            self._ahead = yield
        return self._ahead

    def take(self) -> Reading[str]:
        """The next character; "" at the end, again and again."""
        if self._ahead is None:
            self._ahead = yield
        char = self._ahead
        if char:
            self._ahead = None
        return char

    def spaces(self) -> Reading[None]:
        """Pass over white space."""
        while (yield from self.peek()) in SPACES:
            yield from self.take()

    def expect(self, text: str) -> Reading[None]:
        """Take `text`; white space before it, and where it has some, may be any amount, none included."""
        yield from self.spaces()
        for char in text.strip():
            if char in SPACES:
                yield from self.spaces()
            elif (yield from self.peek()) == char:
                yield from self.take()
            else:
                raise Malformed

    def choose(self, *marks: str) -> Reading[int]:
        """Take one of `marks` and give its place among them; -1, and nothing taken, when none begins here."""
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
        """What stands before the first character of `stops`, which is left; bounded."""
        taken: list[str] = []
        while (char := (yield from self.peek())) and char not in stops:
            taken.append((yield from self.take()))
            if len(taken) > limit:
                raise Malformed
        return "".join(taken)

    def past(self, mark: str, out: Callable[[str], None]) -> Reading[bool]:
        """Hand on what stands before `mark` and pass the mark; False when the text ends first."""
        held = ""
        while char := (yield from self.take()):
            held += char
            if held.endswith(mark):
                out(held[: -len(mark)])
                return True
            keep = overlap(held, mark)
            out(held[: len(held) - keep])
            held = held[len(held) - keep :]
        out(held)
        return False


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0


class ParserRun:
    """Drives one parse over text that arrives in pieces, and knows what it has consumed."""

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
        """Everything consumed since the last `forget`, to be given back as text."""
        return "".join(self._raw)

    def forget(self) -> None:
        """What was consumed so far has become an event."""
        self.fruitful = True
        self._raw = [self._tape.untaken]

    def feed(self, text: str) -> str:
        """Consume from `text` and return what is left once the parse is over."""
        for position, char in enumerate(text):
            self._raw.append(char)
            if not self._send(char):
                if not self._tape.untaken:
                    return text[position + 1 :]
                self._raw.pop()
                return text[position:]
        return ""

    def end(self) -> None:
        """The text is over."""
        while not (self.done or self.failed):
            self._send("")

    def _send(self, char: str) -> bool:
        try:
            self._reading.send(char)
        except StopIteration:
            self.done = True
        except Malformed:
            self.failed = True
        return not (self.done or self.failed)
