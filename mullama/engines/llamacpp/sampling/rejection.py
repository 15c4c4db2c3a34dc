"""A token drawn from a whole vocabulary that top-p or min-p cuts, without sorting it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mullama.engines.llamacpp.binding.context import Floats

COLDEST = 1e-6  # a lower temperature would overflow what it divides
_TRIES = 4  # what top-p usually leaves has nine tenths of the probability and more
_BLOCK = 512  # tokens; a running sum over all of them would take longer than all else here


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionSampler:
    """Top-p, min-p, temperature and the draw, in this order, in one.

    A token is drawn from all that min-p leaves, and drawn again unless top-p leaves it, too: so it has the
    distribution of what both leave (rejection sampling), and nothing needs to be sorted.

    temperature: at least `COLDEST`. p: of top-p, above 0; 1 for no cut. ratio: of min-p; 0 for no cut.
    """

    temperature: float
    p: float
    ratio: float

    def __call__(self, row: Floats, random: Callable[[], float]) -> int | None:
        """The index of a token; None when what was drawn was cut away a few times. random: uniform in [0, 1)."""
        peak = row.max()
        weights = np.exp((row - peak) / np.float32(self.temperature))
        if self.ratio > 0:
            weights *= row >= peak + math.log(min(self.ratio, 1.0))
        ends = np.add.reduceat(weights, np.arange(0, len(row), _BLOCK)).cumsum(dtype=np.float64)
        for _ in range(_TRIES):
            index = _passing(weights, ends, random() * float(ends[-1]))
            if weights[index] > 0 and (self.p >= 1 or in_nucleus(row, index, self.p)):
                return index
        return None


def in_nucleus(row: Floats, index: int, p: float) -> bool:
    """Whether the likelier tokens have less than `p` together. Of equal logits the first counts as the likeliest."""
    value, weights = row[index], np.exp(row - row.max())
    likelier = float(weights @ (row > value).astype(np.float32))
    equal = int(np.count_nonzero(row[:index] == value)) * float(weights[index])
    return likelier + equal < p * float(weights.sum())


def _passing(weights: Floats, ends: NDArray[np.float64], target: float) -> int:
    """Where the running sum of the weights passes `target`; `ends` holds it at the end of each block."""
    block = int(np.searchsorted(ends[:-1], target, side="right"))
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].cumsum(dtype=np.float64)
    before = float(ends[block - 1]) if block else 0.0
    return block * _BLOCK + min(int(np.searchsorted(inside, target - before, side="right")), len(inside) - 1)
