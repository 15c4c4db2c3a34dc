"""Voice activity: scores to events by tables, laws of the gate, and the detectors on made sounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.audio import FRAME, RATE, Samples, samples
from mullama.audio.detectors import EnergyDetector
from mullama.audio.silero import SileroDetector, detector, is_installed
from mullama.audio.voice import SpeechEvent, SpeechGate, SpeechStarted, SpeechStopped, VoiceActivity, VoiceSettings
from tests.audio.sounds import noise, spoken

# One letter for each frame: # has speech, ~ is between the two thresholds, . has none.
SCORES = {"#": 0.9, "~": 0.4, ".": 0.1}
FRAMES = VoiceSettings(speech=2 * FRAME / RATE, silence=3 * FRAME / RATE, pad=FRAME / RATE)


def events(pattern: str, settings: VoiceSettings = FRAMES) -> list[tuple[str, int]]:
    """Return the kinds and frames of the events of a pattern."""
    gate = SpeechGate(settings)
    found = [gate.push(SCORES[letter]) for letter in pattern]
    return [(type(event).__name__.removeprefix("Speech"), event.at // FRAME) for event in [*found, gate.end()] if event]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("........", []),
        ("..#.....", []),  # too short for speech
        ("..##....", [("Started", 1), ("Stopped", 5)]),
        ("##......", [("Started", 0), ("Stopped", 3)]),  # no pad before the beginning of the sound
        ("..##", [("Started", 1), ("Stopped", 4)]),  # the sound ends
        ("..##..##...", [("Started", 1), ("Stopped", 9)]),  # a short pause
        ("..##~~~~~...", [("Started", 1), ("Stopped", 10)]),  # hysteresis: between the thresholds speech continues
        ("..#~....", []),  # and does not become certain
        ("..#~#...", [("Started", 1), ("Stopped", 6)]),
        ("..##.~.~.", [("Started", 1), ("Stopped", 5)]),  # nor does it begin again there
        ("..##...##...", [("Started", 1), ("Stopped", 5), ("Started", 6), ("Stopped", 10)]),
    ],
)
def test_gate(pattern: str, expected: list[tuple[str, int]]) -> None:
    assert events(pattern) == expected


@given(st.text("#~.", max_size=60), st.integers(0, 8), st.integers(1, 8), st.integers(0, 8))
def test_events_alternate_and_are_in_order(pattern: str, speech: int, silence: int, pad: int) -> None:
    frame = FRAME / RATE
    found = events(pattern, VoiceSettings(speech=speech * frame, silence=silence * frame, pad=pad * frame))
    assert [kind for kind, _ in found] == (["Started", "Stopped"] * len(found))[: len(found)]
    assert len(found) % 2 == 0
    places = [0, *(place for _, place in found), len(pattern)]
    assert places == sorted(places)


@given(st.text("#~.", max_size=60))
def test_long_runs_of_speech_are_inside_the_events(pattern: str) -> None:
    found = events(pattern)
    inside = {n for (_, a), (_, b) in zip(found[::2], found[1::2], strict=True) for n in range(a, b)}
    for start in range(len(pattern) - 1):
        if pattern[start : start + 2] == "##":
            assert {start, start + 1} <= inside


def heard(sound: Samples, activity: VoiceActivity, piece: int = 1000) -> list[float]:
    """Return the seconds of all events."""
    found: list[SpeechEvent] = []
    for at in range(0, len(sound), piece):
        found += activity.feed(sound[at : at + piece])
    return [event.at / RATE for event in [*found, *activity.end()]]


@pytest.mark.parametrize("level", [-70, -50])
def test_energy_finds_speech_above_noise(level: float) -> None:
    sound = noise(10, level)
    sound[2 * RATE : 4 * RATE] += spoken(2)
    sound[6 * RATE : 8 * RATE] += spoken(2)
    assert heard(sound, VoiceActivity()) == pytest.approx([1.8, 4.2, 5.8, 8.2], abs=0.15)


@pytest.mark.parametrize("sound", [np.zeros(5 * RATE, np.float32), noise(10, -70), noise(10, -62)])
def test_energy_finds_no_speech_in_quiet(sound: Samples) -> None:
    assert heard(sound, VoiceActivity()) == []


def test_steady_noise_is_no_speech_after_some_seconds() -> None:
    assert heard(noise(30, -30), VoiceActivity())[1] < 4


def test_energy_hears_speech_that_begins_at_once() -> None:
    assert heard(spoken(2), VoiceActivity())[0] == 0


def test_pieces_of_any_length_give_the_same_events() -> None:
    sound = noise(6, -60)
    sound[2 * RATE : 4 * RATE] += spoken(2)
    whole = heard(sound, VoiceActivity(), len(sound))
    for piece in (160, FRAME, 4097):
        assert heard(sound, VoiceActivity(), piece) == whole


def test_activity_tells_the_state_while_sound_arrives() -> None:
    activity = VoiceActivity(VoiceSettings(pad=0.0))
    assert activity.feed(spoken(1))[:1] == [SpeechStarted(0)]
    assert activity.speaking
    assert activity.place == RATE // FRAME * FRAME
    assert [type(event) for event in activity.feed(np.zeros(RATE, np.float32))] == [SpeechStopped]
    assert not activity.speaking


def test_a_tone_and_silence_are_no_speech_to_silero() -> None:
    if not is_installed():
        pytest.skip("mullama[audio] is not installed")
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    activity = VoiceActivity(VoiceSettings(), SileroDetector())
    assert heard(np.concatenate([tone, np.zeros(RATE, np.float32)]), activity) == []


def test_silero_is_the_automatic_detector_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(detector("energy"), EnergyDetector)
    assert isinstance(detector("auto"), SileroDetector) == is_installed()
    monkeypatch.setattr("mullama.audio.silero.is_installed", lambda: False)
    assert isinstance(detector("auto"), EnergyDetector)


def test_durations_are_samples() -> None:
    assert samples(0.5) == 8000
