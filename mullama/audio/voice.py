"""Voice activity: from the scores of frames to the beginnings and ends of speech, with hysteresis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mullama.audio import FRAME, Samples, samples
from mullama.audio.detectors import Detector, EnergyDetector
from mullama.struct import Struct


class VoiceSettings(Struct, frozen=True, kw_only=True):
    """When speech begins and ends. Durations in seconds."""

    threshold: float = 0.5
    """Score from which a frame has speech."""
    release: float = 0.15
    """A frame of speech in progress ends it only with a score that is this much below the threshold."""
    speech: float = 0.1
    """Speech that is shorter is a noise."""
    silence: float = 0.5
    """A pause that is shorter does not end speech."""
    pad: float = 0.2
    """Sound that is kept before the first and after the last frame of speech."""


class SpeechStarted(Struct, frozen=True):
    """Speech begins."""

    at: int
    """Sample of the beginning, with the pad before it."""


class SpeechStopped(Struct, frozen=True):
    """Speech ends."""

    at: int
    """Sample of the end, with the pad after it."""


SpeechEvent = SpeechStarted | SpeechStopped


class SpeechGate:
    """Turns the scores of consecutive frames into events.

    Between two events there is speech, or there is none. No event is before an earlier one.
    """

    def __init__(self, settings: VoiceSettings) -> None:
        self._settings = settings
        self._pad = samples(settings.pad)
        self._least = samples(settings.speech)
        self._pause = samples(settings.silence)
        self._last = 0  # place of the last event
        self._loud = 0  # samples of the run of frames with speech before speech is certain
        self.speaking = False
        self.place = 0
        """Samples of all frames so far."""
        self.quiet = 0
        """Samples of the run of frames without speech up to now."""
        self.score = 0.0
        """Of the last frame."""

    def push(self, score: float) -> SpeechEvent | None:
        """Return the event that the score of the next frame decides, if any."""
        self.place += FRAME
        self.score = score
        loud = score >= self._settings.threshold
        soft = score < self._settings.threshold - self._settings.release
        self.quiet = self.quiet + FRAME if soft or (self.quiet and not loud) else 0
        if self.speaking:
            return self._stop() if self.quiet >= self._pause else None
        self._loud = self._loud + FRAME if loud or (self._loud and not soft) else 0
        if not loud or self._loud < self._least:
            return None
        self.speaking = True
        self._last = max(self._last, self.place - self._loud - self._pad)
        return SpeechStarted(self._last)

    def end(self) -> SpeechEvent | None:
        """Return the end of the speech that the end of the sound ends."""
        return self._stop() if self.speaking else None

    def _stop(self) -> SpeechStopped:
        self.speaking, self._loud = False, 0
        self._last = max(self._last, min(self.place, self.place - self.quiet + self._pad))
        return SpeechStopped(self._last)


class VoiceActivity:
    """Finds speech in a sound that arrives in pieces of any length."""

    def __init__(self, settings: VoiceSettings | None = None, detector: Detector | None = None) -> None:
        """detector: by default the one by energy."""
        self._detector = detector or EnergyDetector()
        self._gate = SpeechGate(settings or VoiceSettings())
        self._rest = np.zeros(0, np.float32)

    @property
    def speaking(self) -> bool:
        """True if the sound so far ends with speech."""
        return self._gate.speaking

    @property
    def place(self) -> int:
        """Samples that are decided."""
        return self._gate.place

    def feed(self, piece: Samples) -> list[SpeechEvent]:
        """Return the events of the next piece, (count,). A rest that is shorter than a frame waits for the next one."""
        return [event for _, event in self.frames(piece) if event is not None]

    def end(self) -> list[SpeechEvent]:
        """Return the events of the rest and of the end of the sound."""
        events = self.feed(np.zeros(FRAME - len(self._rest), np.float32)) if len(self._rest) else []
        last = self._gate.end()
        return events if last is None else [*events, last]

    def frames(self, piece: Samples) -> Iterator[tuple[SpeechGate, SpeechEvent | None]]:
        """Yield the state after each whole frame of the sound with its event."""
        sound = np.concatenate([self._rest, piece])
        count = len(sound) // FRAME
        self._rest = sound[count * FRAME :].copy()
        if count:
            for score in self._detector.scores(sound[: count * FRAME].reshape(count, FRAME)):
                yield self._gate, self._gate.push(score)
