"""Sounds for tests: noise, and vowels in syllables."""

from __future__ import annotations

import numpy as np

from mullama.audio import RATE, Samples


def noise(seconds: float, level: float) -> Samples:
    """Return white noise. level: dB of full scale."""
    count = round(seconds * RATE)
    return np.random.default_rng(7).normal(0, 10 ** (level / 20), count).astype(np.float32)


def spoken(seconds: float, *, pitch: float = 150, level: float = 0.2) -> Samples:
    """Return a buzz with formants, four syllables a second: what a detector by energy takes for speech."""
    t = np.arange(round(seconds * RATE)) / RATE
    formants = {n * pitch: 1 / (1 + abs(n * pitch - 700) / 300) for n in range(1, 20)}
    voice = sum(gain * np.sin(2 * np.pi * hertz * t) for hertz, gain in formants.items())
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * t + 2)
    return (level * voice / np.abs(voice).max() * syllables).astype(np.float32)
