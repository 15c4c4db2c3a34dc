"""Cuts a long sound at its pauses into windows that a model hears one by one, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mullama.audio import FRAME, Samples, samples
from mullama.audio.detectors import Detector
from mullama.audio.voice import SpeechGate, SpeechStarted, SpeechStopped, VoiceActivity, VoiceSettings
from mullama.struct import Struct

_SHORT_PAUSE = samples(0.2)
"""The shortest pause where a full window is cut: stops inside of words are shorter."""
_LONG_PAUSE = samples(2.0)
"""A pause that ends a window however little speech that has: a model would hear more silence than speech."""


class WindowLimits(Struct, frozen=True, kw_only=True):
    """Durations of windows, in seconds."""

    most: float = 30.0
    """A window is never longer: the sound that the encoder of a model takes at once."""
    enough: float = 20.0
    """The first pause after it ends a window."""
    overlap: float = 2.0
    """Sound that two windows share where speech without a pause is cut."""


class SoundWindow(Struct, frozen=True, eq=False):
    """A part of a sound with speech. Places are in samples from the beginning of the sound."""

    start: int
    samples: Samples
    overlap: int = 0
    """Samples at the beginning that the window before has too."""
    cut: bool = False
    """No pause was found at the end: the next window begins with the end of this one, if speech continues."""
    voice: float = 1.0
    """Mean score of the detector, over the frames that have speech."""

    @property
    def end(self) -> int:
        return self.start + len(self.samples)


class _Pause(Struct, frozen=True):
    begin: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin


class WindowCutter:
    """Takes a sound in pieces and gives its windows, in order. A stretch without speech is in none of them."""

    def __init__(self, limits: WindowLimits, settings: VoiceSettings, detector: Detector | None = None) -> None:
        self._limits, self._pad = limits, samples(settings.pad)
        self._activity = VoiceActivity(settings, detector)
        self._most = max(4 * FRAME, samples(limits.most))
        self._enough = min(samples(limits.enough), self._most)
        self._overlap = min(samples(limits.overlap), self._most // 4)
        self._before = self._pad + samples(settings.speech) + 2 * FRAME  # speech is certain so much after its beginning
        self._sound = np.zeros(0, np.float32)
        self._base = 0  # place of the first sample that is kept
        self._start: int | None = None  # of the open window
        self._shared = 0  # samples of it that the window before has
        self._stop: int | None = None  # end of its last speech, while a pause lasts
        self._pauses: list[_Pause] = []  # inside it
        self._scores = (0.0, 0)  # sum and count of the frames that have speech
        self._last = 0  # end of the last window

    def feed(self, piece: Samples) -> Iterator[SoundWindow]:
        """Yield the windows that the next piece completes."""
        self._sound = np.concatenate([self._sound, piece])
        for gate, event in self._activity.frames(piece):
            if isinstance(event, SpeechStarted):
                self._stop = None
                if self._start is None:
                    self._open(max(event.at, self._last))
            elif isinstance(event, SpeechStopped):
                self._stop = event.at
            yield from self._decide(gate)
        self._forget()

    def end(self) -> Iterator[SoundWindow]:
        """Yield the last window of the sound."""
        rest = -len(self._sound) % FRAME
        length = self._base + len(self._sound)
        yield from self.feed(np.zeros(rest, np.float32))
        if self._start is not None:
            # Less of the sound's end than a frame is left, if any.
            yield from self._close(min(length, self._stop or length))

    def _open(self, start: int, shared: int = 0) -> None:
        self._start, self._shared, self._stop = start, shared, None
        self._scores = (0.0, 0)

    def _decide(self, gate: SpeechGate) -> Iterator[SoundWindow]:
        """Close the window if it is time, after the frame that ends at the place of the gate."""
        if self._start is None:
            return
        if gate.quiet:
            begin = gate.place - gate.quiet
            if self._pauses and self._pauses[-1].begin == begin:
                self._pauses.pop()
            self._pauses.append(_Pause(begin, gate.place))
        elif gate.speaking:
            total, count = self._scores
            self._scores = (total + gate.score, count + 1)
        length = gate.place - self._start
        if self._stop is not None:
            full = self._stop - self._start >= self._enough or gate.quiet >= _LONG_PAUSE
            if full or length + FRAME > self._most:
                yield from self._close(self._stop)
        elif length + FRAME > self._most:
            yield from self._split(gate)

    def _split(self, gate: SpeechGate) -> Iterator[SoundWindow]:
        """Cut the full window at its longest pause, one in its second half if there is any."""
        assert self._start is not None
        first = self._start + self._shared
        usable = [pause for pause in self._pauses if pause.length >= _SHORT_PAUSE and pause.begin > first]
        late = [pause for pause in usable if pause.begin - self._start >= self._most // 2]
        if not usable:
            yield from self._close(gate.place, cut=True)
            self._open(gate.place - self._overlap, self._overlap)
            return
        pause = max(late or usable, key=lambda pause: pause.length)
        middle = (pause.begin + pause.end) // 2
        later = [other for other in self._pauses if other.begin >= pause.end]
        yield from self._close(min(pause.begin + self._pad, middle))
        self._open(max(pause.end - self._pad, middle))
        self._pauses = later

    def _close(self, end: int, *, cut: bool = False) -> Iterator[SoundWindow]:
        assert self._start is not None
        if end > self._start + self._shared:  # speech may end where the window before was cut
            (total, count), sound = self._scores, self._sound[self._start - self._base : end - self._base]
            voice = total / count if count else 1.0
            yield SoundWindow(self._start, sound.copy(), self._shared, cut, voice)
            self._last = end
        self._start = self._stop = None
        self._pauses = []

    def _forget(self) -> None:
        """Drop the sound before the open window, or before any that may open."""
        place = self._base + len(self._sound)
        needed = max(self._last, place - self._before - FRAME) if self._start is None else self._start
        if (count := min(needed, place) - self._base) > 0:
            self._sound = self._sound[count:]
            self._base += count
