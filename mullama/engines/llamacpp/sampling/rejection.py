"""Draws a token from a vocabulary that top-p or min-p cuts, without sorting it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats
from mullama.struct import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLDEST = 1e-6  # lowest temperature; a lower one would overflow the quotient
_TRIES = 4  # top-p usually keeps nine tenths of the probability or more
_BLOCK = 512  # tokens; a running sum over all tokens would take longer than the rest of the draw


class RejectionSampler(Struct, frozen=True, kw_only=True):
    """Top-p, min-p, temperature and the draw, in this order, in one step.

    A token is drawn from all tokens that min-p keeps, and drawn again unless top-p keeps it too. The result has the
    distribution of the tokens that both keep (rejection sampling), and nothing needs to be sorted.
    """

    temperature: float
    """At least `COLDEST`."""
    p: float
    """The probability of top-p, above 0; 1 for no cut."""
    ratio: float
    """The ratio of min-p; 0 for no cut."""

    def __call__(self, row: Floats, random: Callable[[], float]) -> int | None:
        """Return the index of a token, None after a few draws that top-p cuts. `random` is uniform in [0, 1)."""
        peak = row.max()
        weights = np.exp((row - peak) / np.float32(self.temperature))
        if self.ratio > 0:
            weights *= row >= peak + math.log(min(self.ratio, 1.0))
        ends = np.add.reduceat(weights, np.arange(0, len(row), _BLOCK)).cumsum(dtype=np.float64)
        for _ in range(_TRIES):
            index = _index_at(weights, ends, random() * float(ends[-1]))
            if weights[index] > 0 and (self.p >= 1 or in_nucleus(row, index, self.p)):
                return index
        return None


def in_nucleus(row: Floats, index: int, p: float) -> bool:
    """Return True if the likelier tokens have a total below `p`. The first of equal logits is the likeliest."""
    value, weights = row[index], np.exp(row - row.max())
    likelier = float(weights @ (row > value).astype(np.float32))
    equal = int(np.count_nonzero(row[:index] == value)) * float(weights[index])
    return likelier + equal < p * float(weights.sum())


def _index_at(weights: Floats, ends: NDArray[np.float64], target: float) -> int:
    """Return the index where the running sum of weights exceeds `target`; `ends` has the sum at each block's end."""
    block = int(np.searchsorted(ends[:-1], target, side="right"))
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64)
    before = float(ends[block - 1]) if block else 0.0
    return block * _BLOCK + min(int(np.searchsorted(inside, target - before, side="right")), len(inside) - 1)
