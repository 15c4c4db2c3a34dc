"""The seam of voice detectors, and the detector by energy."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mullama.audio import FRAME, RATE, Samples

_BAND = (200.0, 4000.0)
"""Hertz of the voice. Hum is below it, and much of a hiss above it."""
_FLOOR_SECONDS = 3.0
"""Speech has pauses between syllables, so the quietest frame of such a time is noise."""
_QUIET_ROOM = -55.0
"""dB of full scale that the noise has at most in the beginning: a sound may begin with speech."""
_SILENCE = -65.0
"""dB of full scale below which nothing is speech."""
_CLEAR = 9.0
"""dB above the noise at which speech and noise are equally likely."""
_SLOPE = 2.0


class Detector(Protocol):
    """Scores frames. It keeps state between calls, so each sound has a detector of its own."""

    def scores(self, frames: Samples) -> Sequence[float]:
        """Return for each frame how likely it has speech, from 0 to 1. frames: (count, FRAME)."""
        ...


class EnergyDetector:
    """Compares the energy of each frame in the band of the voice with the quietest frame of the last seconds."""

    def __init__(self) -> None:
        window = np.hanning(FRAME).astype(np.float32)
        self._window = window
        hertz = np.fft.rfftfreq(FRAME, 1 / RATE)
        self._band = (hertz >= _BAND[0]) & (hertz <= _BAND[1])
        # A sine of full scale has 0 dB: its bins sum up to FRAME / 4 times the energy of the window.
        self._full = FRAME / 4 * float((window**2).sum())
        self._floor = _SlidingMinimum(round(_FLOOR_SECONDS * RATE / FRAME), _QUIET_ROOM)

    def scores(self, frames: Samples) -> Sequence[float]:
        spectrum = np.abs(np.fft.rfft(frames * self._window, axis=1)[:, self._band]) ** 2
        levels = 10 * np.log10(spectrum.sum(axis=1) / self._full + 1e-12)
        return [self._score(level) for level in levels.tolist()]

    def _score(self, level: float) -> float:
        floor = self._floor.push(level)
        if level < _SILENCE:
            return 0.0
        return 1 / (1 + math.exp((_CLEAR - (level - floor)) / _SLOPE))


class _SlidingMinimum:
    """The least of the last values, in constant time for each."""

    def __init__(self, count: int, first: float) -> None:
        """first: stands for the values before the first one."""
        self._count = count
        self._at = 0
        self._least: deque[tuple[int, float]] = deque([(0, first)])

    def push(self, value: float) -> float:
        """Return the least of the last `count` values including this one."""
        self._at += 1
        while self._least and self._least[-1][1] >= value:
            self._least.pop()
        self._least.append((self._at, value))
        while self._least[0][0] <= self._at - self._count:
            self._least.popleft()
        return self._least[0][1]
