"""Changes the rate of a sound that arrives in pieces to 16 kHz, by a windowed sinc filter."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mullama.audio import RATE, Samples

_ZERO_CROSSINGS = 16
"""Of the sinc on each side of its middle."""
_BETA = 9.0
"""Of the Kaiser window: the stop band is about 90 dB down."""
_ROLLOFF = 0.94
"""The pass band ends a little below half the lower rate, so that the transition band folds nothing into it."""
_FINEST = 640
"""Highest denominator of a ratio of rates. The error of others is below 3 parts in a million: 30 ms in three hours."""
_LEAST_OUTPUT = 160
"""Samples that one row of the matrix product gives, at least."""


class Resampler:
    """A block of `taken` samples gives `made` samples by one product with a matrix, which BLAS computes."""

    def __init__(self, rate: int) -> None:
        """rate: of the sound, in Hz."""
        ratio = Fraction(RATE, rate).limit_denominator(_FINEST) if rate <= RATE else (
            1 / Fraction(rate, RATE).limit_denominator(_FINEST)
        )  # fmt: skip
        times = -(-_LEAST_OUTPUT // ratio.numerator)
        self._made, self._taken = ratio.numerator * times, ratio.denominator * times
        self._same = ratio == 1
        cutoff = min(1.0, float(ratio)) * _ROLLOFF
        self._reach = math.ceil(_ZERO_CROSSINGS / cutoff)
        # Row n: where the n-th sample of a block lies among the samples taken, and the filter around it.
        place = np.arange(self._made) / float(ratio)
        offsets = np.arange(-self._reach, self._taken + self._reach)[None, :] - place[:, None]
        inside = np.abs(offsets) <= self._reach
        kaiser = np.i0(_BETA * np.sqrt(np.clip(1 - (offsets / self._reach) ** 2, 0, None))) / np.i0(_BETA)
        taps = np.where(inside, np.sinc(offsets * cutoff) * kaiser, 0.0)
        self._matrix = (taps / taps.sum(axis=1, keepdims=True)).T.astype(np.float32)
        self._held = np.zeros(self._reach, np.float32)
        self._in = self._out = 0

    def feed(self, piece: Samples) -> Samples:
        """Return the samples at 16 kHz that the sound so far decides and that no earlier call returned."""
        if self._same:
            return piece
        self._in += len(piece)
        self._held = np.concatenate([self._held, piece])
        width = self._taken + 2 * self._reach
        blocks = (len(self._held) - 2 * self._reach) // self._taken
        if blocks <= 0:
            return np.zeros(0, np.float32)
        rows = np.lib.stride_tricks.sliding_window_view(self._held, width)[:: self._taken][:blocks]
        made: Samples = (rows @ self._matrix).reshape(-1)
        self._held = self._held[blocks * self._taken :].copy()
        self._out += len(made)
        return made

    def end(self) -> Samples:
        """Return the rest; the sound has as many samples for each second as the rates say."""
        if self._same:
            return np.zeros(0, np.float32)
        wanted = math.ceil(self._in * self._made / self._taken) - self._out
        rest = self.feed(np.zeros(self._taken + 2 * self._reach, np.float32))
        return rest[: max(0, wanted)]
