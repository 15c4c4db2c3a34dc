"""Rates of sound: tones keep their pitch and level, what 16 kHz cannot hold disappears, and pieces do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from mullama.audio import RATE, Samples
from mullama.audio.pcm import to_pcm
from mullama.audio.resample import Resampler
from mullama.chat.media.formats import header_of
from mullama.chat.media.wav import wav_file


def tone(hertz: float, rate: int, seconds: float = 1.0) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def resampled(sound: Samples, rate: int, piece: int = 10**9) -> Samples:
    resampler = Resampler(rate)
    parts = [resampler.feed(sound[at : at + piece]) for at in range(0, len(sound), piece)]
    return np.concatenate([*parts, resampler.end()])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 44099, 96000])
def test_a_tone_stays_the_tone(rate: int) -> None:
    found = resampled(tone(440, rate), rate)
    assert len(found) == pytest.approx(RATE, abs=1)
    middle = slice(1000, len(found) - 1000)
    assert np.abs(found[middle] - tone(440, RATE, 1.1)[middle]).max() < 4e-3


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_tones_above_half_the_rate_disappear(rate: int) -> None:
    found = resampled(tone(9500, rate), rate)
    assert np.abs(found[1000:-1000]).max() < 1e-3


def test_pieces_of_any_length_give_the_same_sound() -> None:
    sound = tone(300, 44100)
    whole = resampled(sound, 44100)
    for piece in (1000, 441, 17_001):
        assert resampled(sound, 44100, piece) == pytest.approx(whole, abs=1e-5)


def test_a_sound_without_samples_stays_one() -> None:
    assert len(resampled(np.zeros(0, np.float32), 8000)) == 0


def test_pcm_and_wav() -> None:
    sound = np.array([0, 0.5, -1, 1, 2, -2], np.float32)
    assert np.frombuffer(to_pcm(sound), "<i2").tolist() == [0, 16384, -32767, 32767, 32767, -32767]
    header = header_of(wav_file(to_pcm(np.zeros(RATE, np.float32))))
    assert header is not None
    assert header.seconds == 1
