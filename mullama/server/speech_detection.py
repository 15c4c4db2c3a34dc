"""Finds speech in the sound of a session, at any rate of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mullama.audio import RATE
from mullama.audio.resample import Resampler
from mullama.audio.silero import detector
from mullama.audio.voice import SpeechStarted, VoiceActivity, VoiceSettings
from mullama.dialects.sessions import Boundary


def prepare() -> None:
    """Import and open the detector, which takes up to a second the first time. Call it in a thread."""
    detector("auto")


class SessionSpeechDetector:
    """Implements `dialects.sessions.SpeechDetector`.

    Args:
        name: `energy`, `silero`, or `auto` for Silero where it is installed.
        threshold: score from 0 to 1 from which a frame has speech.
        silence: milliseconds that end speech.
        rate: samples of one second.
    """

    def __init__(self, name: str, threshold: float, silence: int, rate: int) -> None:
        settings = VoiceSettings(threshold=threshold, silence=silence / 1000, pad=0.0)
        self._voice = VoiceActivity(settings, detector(name))
        self._resampler = Resampler(rate)

    def feed(self, samples: bytes) -> Sequence[Boundary]:
        sound = np.frombuffer(samples, "<i2").astype(np.float32) / np.float32(32768)
        events = self._voice.feed(self._resampler.feed(sound))
        return [Boundary(starts=isinstance(e, SpeechStarted), at=e.at * 1000 // RATE) for e in events]
