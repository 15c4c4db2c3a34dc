"""Media as runs of a prompt: opaque stretches of tokens that the prefix tree shares as a whole. Pure.

A run stands in the list of a prompt's tokens as one number for each *position* that it takes in memory. The numbers
are negative, and no two runs share one, except a run of the same medium with the same projector. So the prefix tree
finds a medium again by comparing numbers, as it finds text, and two prompts never have a part of a run in common: where
they differ, they differ at the first number of a run.

A position of the list is a position of llama.cpp, for media as well. With M-RoPE an image of 40 x 25 vectors takes
1,000 cells and 40 positions, so cells are counted by `Numbers.cells_of`, see `run_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mullama.engines.base import Generate
from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.struct import Struct

_FIRST = -2  # -1 is "no token" elsewhere


class MediaRun(Struct, frozen=True, kw_only=True, eq=False):
    """One chunk of a medium, encoded."""

    numbers: tuple[int, ...]
    """One for each position."""
    tokens: int
    """Vectors and cells."""
    whole: bool
    """All vectors need one micro-batch, see `MediaChunk.whole`."""
    vectors: Floats
    place: tuple[Ids, Ids] | None
    """See `MediaChunk.place`."""


class PlacedRun(Struct, frozen=True, kw_only=True, eq=False):
    """A run of one prompt."""

    start: int
    """Its first position."""
    run: MediaRun

    @property
    def end(self) -> int:
        return self.start + len(self.run.numbers)

    @property
    def extra(self) -> int:
        """Cells beyond one for each position."""
        return self.run.tokens - len(self.run.numbers)


class MediaJob(Generate, frozen=True, kw_only=True):
    """A job whose media are encoded. Its prompt is the list of numbers."""

    runs: tuple[PlacedRun, ...]


class Numbers:
    """Gives numbers to the runs of one projector. A run that is forgotten gets new ones, and is in no cache then."""

    def __init__(self) -> None:
        self._next = _FIRST
        self._extra: dict[int, int] = {}  # by the first number of a run

    def take(self, positions: int, tokens: int) -> tuple[int, ...]:
        """Return numbers for a run of so many positions and cells."""
        numbers = tuple(range(self._next, self._next - positions, -1))
        self._next -= positions
        if tokens != positions:
            self._extra[numbers[0]] = tokens - positions
        return numbers

    def cells_of(self, tokens: Sequence[int]) -> int:
        """Return the cells of a part of a sequence, which holds whole runs."""
        extra = self._extra
        return len(tokens) + sum(extra.get(token, 0) for token in tokens if token < 0) if extra else len(tokens)


def texts_of(tokens: Iterable[int]) -> list[int]:
    """Return the tokens without those of runs."""
    return [token for token in tokens if token >= 0]
