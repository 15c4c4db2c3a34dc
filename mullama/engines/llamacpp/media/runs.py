"""Media as runs of a prompt: opaque stretches of tokens that the prefix tree shares as a whole. Pure.

A run stands in the list of a prompt's tokens as one number for each *position* that it takes in memory. The numbers
are negative, and no two runs share one, except a run of the same medium with the same projector. So the prefix tree
finds a medium again by comparing numbers, as it finds text, and two prompts never have a part of a run in common: where
they differ, they differ at the first number of a run.

A position of the list is a position of llama.cpp, for media as well. With M-RoPE an image of 40 x 25 vectors takes
1,000 cells and 40 positions: the lowest bits of a run's first number are the cells beyond one for each position.
`Numbers.cells_of` counts by them, see `run_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mullama.engines.base import Generate
from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.struct import Struct

_CELL_BITS = 32  # of a number, from the lowest
_CELLS = (1 << _CELL_BITS) - 1


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
        self._taken = 0
        self._beyond = False  # a run has more cells than positions

    def take(self, positions: int, tokens: int) -> tuple[int, ...]:
        """Return numbers for a run of so many positions and cells."""
        first, self._taken = self._taken + 1, self._taken + positions
        self._beyond = self._beyond or tokens > positions
        numbers = [-(number << _CELL_BITS) for number in range(first, first + positions)]
        return (numbers[0] - (tokens - positions), *numbers[1:])

    def cells_of(self, tokens: Sequence[int]) -> int:
        """Return the cells of a part of a sequence, which holds whole runs."""
        if not self._beyond:
            return len(tokens)
        return len(tokens) + sum(-token & _CELLS for token in tokens if token < 0)


def texts_of(tokens: Iterable[int]) -> list[int]:
    """Return the tokens without those of runs."""
    return [token for token in tokens if token >= 0]
