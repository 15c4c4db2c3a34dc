"""The random numbers of llama.cpp's last sampler, so that a seed draws the same tokens without its chain."""

from __future__ import annotations

from random import Random

import numpy as np

_WORDS = 624
_MASK = 0xFFFFFFFF
_VERSION = 3  # of the states of `Random`
_AHEAD = 32  # numbers made at once


class DrawGenerator:
    """`std::mt19937`, seeded and read as llama_sampler_dist does.

    `Random` is the same generator and seeds it in another way.
    """

    def __init__(self, seed: int) -> None:
        """seed: 0 to 2**32 - 1."""
        words = [seed & _MASK]
        for index in range(1, _WORDS):
            last = words[-1]
            words.append((1812433253 * (last ^ (last >> 30)) + index) & _MASK)
        self._random = Random()
        self._random.setstate((_VERSION, (*words, _WORDS), None))
        self._numbers: list[float] = []

    def next(self) -> float:
        """Return a number from 0 up to 1, as `std::uniform_real_distribution<double>` makes it of two words."""
        if not self._numbers:
            octets = self._random.getrandbits(64 * _AHEAD).to_bytes(8 * _AHEAD, "little")
            numbers = np.frombuffer(octets, "<u8") * 2.0**-64
            self._numbers = np.minimum(numbers, 1 - 2.0**-53)[::-1].tolist()
        return self._numbers.pop()
