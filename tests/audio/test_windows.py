"""Windows of long sounds: by tables of patterns, and laws over all patterns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.audio import FRAME, RATE, Samples
from mullama.audio.voice import SpeechStarted, SpeechStopped, VoiceActivity, VoiceSettings
from mullama.audio.windows import SoundWindow, WindowCutter, WindowLimits
from tests.audio.sounds import noise, spoken

FRAMES = FRAME / RATE
SETTINGS = VoiceSettings(speech=FRAMES, silence=8 * FRAMES, pad=FRAMES)


class Marked:
    """A detector for sounds whose frames say whether they have speech."""

    def scores(self, frames: Samples) -> Sequence[float]:
        return frames[:, 0].tolist()


def sound_of(pattern: str) -> Samples:
    """Return a frame for each letter: # has speech."""
    return np.repeat(np.array([float(letter == "#") for letter in pattern], np.float32), FRAME)


def windows(pattern: str, *, most: int, enough: int, overlap: int = 4, piece: int = 10**9) -> list[SoundWindow]:
    limits = WindowLimits(most=most * FRAMES, enough=enough * FRAMES, overlap=overlap * FRAMES)
    cutter, sound = WindowCutter(limits, SETTINGS, Marked()), sound_of(pattern)
    found: list[SoundWindow] = []
    for at in range(0, len(sound), piece):
        found += cutter.feed(sound[at : at + piece])
    return [*found, *cutter.end()]


def frames(found: list[SoundWindow]) -> list[tuple[int, int, int]]:
    return [(window.start // FRAME, window.end // FRAME, window.overlap // FRAME) for window in found]


@pytest.mark.parametrize(
    ("pattern", "most", "enough", "expected"),
    [
        ("." * 50, 30, 20, []),
        ("..####" + "." * 20, 30, 20, [(1, 7, 0)]),
        # Two sentences fit into one window, and are one.
        (".####........####" + "." * 80, 40, 30, [(0, 18, 0)]),
        # Enough: the next pause ends the window.
        (".####........####" + "." * 20, 40, 4, [(0, 6, 0), (12, 18, 0)]),
        # Full in the pause after the first sentence.
        (".##########" + "." * 9 + "#" * 10 + "." * 20, 22, 22, [(0, 12, 0), (19, 31, 0)]),
        # Full in speech: cut at the pause in its second half, which is longer than those in words.
        (".####." + "#" * 12 + "." * 7 + "#" * 16 + "." * 10, 32, 30, [(0, 19, 0), (24, 42, 0)]),
        # No pause at all: two windows share some sound.
        ("#" * 40 + "." * 10, 16, 16, [(0, 16, 0), (12, 28, 4), (24, 40, 4), (36, 41, 4)]),
        # A long silence ends a window.
        (".####" + "." * 70 + "####" + "." * 10, 200, 200, [(0, 6, 0), (74, 80, 0)]),
    ],
)
def test_windows(pattern: str, most: int, enough: int, expected: list[tuple[int, int, int]]) -> None:
    assert frames(windows(pattern, most=most, enough=enough)) == expected


PATTERNS = st.lists(st.tuples(st.sampled_from("#."), st.integers(1, 30)), max_size=12).map(
    lambda runs: "".join(letter * count for letter, count in runs)
)


@given(PATTERNS, st.integers(8, 40), st.integers(1, 40), st.integers(0, 8), st.sampled_from([301, 5000, 10**6]))
def test_every_speech_is_in_a_window(pattern: str, most: int, enough: int, overlap: int, piece: int) -> None:
    found = windows(pattern, most=most, enough=enough, overlap=overlap, piece=piece)
    sound = sound_of(pattern)
    for before, after in itertools.pairwise(found):
        assert before.start < after.start
        assert after.start == before.end - after.overlap if after.overlap else after.start >= before.end
        assert before.cut or not after.overlap
    covered = np.zeros(len(sound), bool)
    for window in found:
        assert 0 < len(window.samples) <= most * FRAME
        assert (window.samples == sound[window.start : window.end]).all()
        covered[window.start : window.end] = True
    activity = VoiceActivity(SETTINGS, Marked())
    events = [*activity.feed(sound), *activity.end()]
    for begin, end in zip(events[::2], events[1::2], strict=True):
        assert isinstance(begin, SpeechStarted)
        assert isinstance(end, SpeechStopped)
        loud = np.flatnonzero(sound[begin.at : end.at]) + begin.at
        assert covered[loud].all()


def test_the_sound_that_is_kept_is_bounded() -> None:
    cutter = WindowCutter(WindowLimits(most=5, enough=3), VoiceSettings())
    part = np.concatenate([spoken(7), noise(1, -80)])
    most = count = 0
    for _ in range(20):
        for at in range(0, len(part), RATE):
            count += sum(1 for _ in cutter.feed(part[at : at + RATE]))
            most = max(most, len(cutter._sound))
    assert count > 20
    assert most < 7 * RATE


def test_windows_tell_how_certain_the_detector_is() -> None:
    (window,) = windows("..####" + "." * 20, most=30, enough=20)
    assert window.voice == 1.0
