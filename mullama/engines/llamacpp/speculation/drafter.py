"""The interface of the ways to guess tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mullama.struct import Struct


class Ask(Struct, frozen=True, kw_only=True):
    """A request for guesses."""

    key: int
    """The request that runs."""
    tokens: Sequence[int]
    """Prompt and answer so far. It grows between two calls and never changes otherwise."""
    most: int
    """Largest number of guesses."""
    min_probability: float = 0.0
    """Guessing ends before the first token with a lower probability. For drafters that know probabilities."""


class Guesses(Struct, frozen=True, kw_only=True):
    """Guessed tokens of one request."""

    tokens: tuple[int, ...] = ()
    evidence: int = 0
    """How well the guess is founded, as a class of guesses that are accepted about equally often; see `policy`."""


NO_GUESSES = Guesses()
NOBODY = -1


class DecodedPart(Struct, frozen=True, kw_only=True):
    """Tokens of one request that were decoded."""

    key: int
    """The request, `NOBODY` for one that gets no guesses."""
    start: int
    """The position of the first."""
    tokens: Sequence[int]
    answering: bool
    """The prompt was in memory before."""


class Drafter(Protocol):
    """Guesses the next tokens of running requests."""

    free: bool
    """A guess costs nothing worth counting, so that more may be asked for than the policy will use."""
    evidence: int
    """Of the guesses of a drafter that is not free."""
    each: float
    """Seconds that one guess takes, as measured; 0 before."""

    def decoded(self, parts: Sequence[DecodedPart], skip: int) -> None:
        """Take note of a decode of these parts, after `skip` tokens of others, before anything else is decoded."""
        ...

    def propose(self, asks: Sequence[Ask]) -> list[Guesses]:
        """Return one draft for each request, in order."""
        ...

    def end(self, key: int) -> None:
        """Forget a request."""
        ...

    def close(self) -> None:
        """Free what the drafter holds."""
        ...
