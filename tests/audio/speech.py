"""Sound that a detector of voices by energy takes for speech, as 16-bit samples."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def quiet(seconds: float, rate: int = 16_000) -> bytes:
    """A room without a voice."""
    noise = np.random.default_rng(1).normal(0, 20, int(rate * seconds))
    return noise.astype("<i2").tobytes()


def voice(seconds: float, rate: int = 16_000) -> bytes:
    """A hum with overtones that swells four times a second, as syllables do."""
    place = np.arange(int(rate * seconds)) / rate
    tones = [np.sin(2 * np.pi * hertz * place) / k for k, hertz in enumerate((150, 300, 450, 600, 900, 1200, 2400), 1)]
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * place)
    whole: bytes = (4000 * swell * sum(tones)).astype("<i2").tobytes()
    return whole


def write_wav(path: Path, samples: bytes, rate: int = 16_000, channels: int = 1) -> Path:
    """Write a file of these samples; with several channels, all have the same."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.frombuffer(samples, "<i2"), channels).tobytes())
    return path
