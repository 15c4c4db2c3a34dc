"""Sounds as 16-bit samples at any rate, and files of them."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from mullama.audio import RATE, Samples
from mullama.audio.pcm import to_pcm
from tests.audio.sounds import noise, spoken


def quiet(seconds: float, rate: int = RATE) -> bytes:
    """A room without a voice."""
    return _at(noise(seconds, -70), rate)


def voice(seconds: float, rate: int = RATE) -> bytes:
    """Speech for a detector by energy."""
    return _at(spoken(seconds), rate)


def _at(sound: Samples, rate: int) -> bytes:
    places = np.arange(int(len(sound) * rate / RATE)) * (RATE / rate)
    return to_pcm(np.interp(places, np.arange(len(sound)), sound).astype(np.float32))


def write_wav(path: Path, samples: bytes, rate: int = RATE, channels: int = 1) -> Path:
    """Write a file of these samples; with several channels, all have the same."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.frombuffer(samples, "<i2"), channels).tobytes())
    return path
