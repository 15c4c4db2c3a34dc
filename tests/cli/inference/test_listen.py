"""`mullama listen` with a scripted server: files, pipes, terminals, interruptions and faults."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mullama.audio.detectors import EnergyDetector
from mullama.chat import inventory, types
from mullama.cli.inference.sound_source import file_source, mono, raw_source
from mullama.cli.inference.spoken import Spoken, SpokenLine
from mullama.errors import Invalid, NotFound, Unsupported
from tests.audio.speech import quiet, voice, write_wav
from tests.cli.conftest import Ran
from tests.cli.pty_session import pty_session
from tests.server.server_fixture import ANSWERS, RunningServer, StubRuntime, running_server

Run = Callable[..., Ran]
HEARS = {inventory.ShowModel: lambda operation: inventory.ModelCard(name=operation.model, capabilities=("audio",))}
TWO_TURNS = quiet(0.6) + voice(0.8) + quiet(1.0) + voice(0.8) + quiet(0.3)


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server whose model hears, and that finds speech by energy."""
    monkeypatch.setattr("mullama.server.speech_detection.detector", lambda name: EnergyDetector())
    monkeypatch.setattr("tests.server.server_fixture.ANSWERS", {**ANSWERS, **HEARS})
    with running_server() as server:
        yield server


def url(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_each_turn_of_a_file_is_answered_on_a_line_of_a_pipe(run: Run, hearing: RunningServer, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", TWO_TURNS, channels=2)
    ran = run("listen", "a.wav", "-m", "tiny", "--system", "Short.", "-n", "7", "--host", url(hearing))
    assert (ran.code, ran.out, ran.err) == (0, "tiny: Hello\ntiny: Hello\n", "")
    first, second = (one for one in hearing.runtime.seen if isinstance(one, types.ChatRequest))
    assert [m.role for m in first.messages] == ["system", "user"]
    assert [m.role for m in second.messages] == ["system", "user", "assistant", "user"]
    assert first.max_tokens == 7


def test_raw_samples_come_from_a_pipe(
    run: Run, hearing: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.cli.conftest.Screen.buffer", io.BytesIO(quiet(0.3) + voice(0.5)), raising=False)
    ran = run("listen", "-", "-m", "tiny", "--host", url(hearing))
    assert (ran.code, ran.out) == (0, "tiny: Hello\n")


def test_a_sound_without_speech_says_so(run: Run, hearing: RunningServer, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", quiet(0.5))
    ran = run("listen", "a.wav", "-m", "tiny", "--host", url(hearing))
    assert (ran.code, ran.out) == (0, "")
    assert "no speech" in ran.err


@pytest.mark.parametrize("source", ["a.wav", "-"])
def test_settings_that_the_server_refuses_are_an_error(
    run: Run, hearing: RunningServer, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "a.wav", TWO_TURNS)
    monkeypatch.setattr("tests.cli.conftest.Screen.buffer", io.BytesIO(TWO_TURNS), raising=False)
    ran = run("listen", source, "-m", "tiny", "--pause", "5", "--host", url(hearing))
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.count("error: ") == 1
    assert "silence_duration_ms must be an integer between 50 and 10000" in ran.err


def test_a_failed_answer_is_reported_and_the_rest_goes_on(run: Run, hearing: RunningServer, tmp_path: Path) -> None:
    hearing.runtime.script = (NotFound("the model is gone"),)
    write_wav(tmp_path / "a.wav", TWO_TURNS)
    ran = run("listen", "a.wav", "-m", "tiny", "--host", url(hearing))
    assert ran.err.count("error: the model is gone") == 2
    assert ran.code == 1


def test_a_model_that_reads_no_sound_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mullama.server.speech_detection.detector", lambda name: EnergyDetector())
    write_wav(tmp_path / "a.wav", quiet(0.5) + voice(0.5))
    with running_server() as server:
        ran = run("listen", "a.wav", "-m", "tiny", "--host", url(server))
    assert "task: transcription" in ran.err


def test_a_key_that_is_missing_is_an_error(run: Run, tmp_path: Path) -> None:
    from tests.server.server_fixture import key

    write_wav(tmp_path / "a.wav", quiet(0.2))
    with running_server(StubRuntime(keys=(key("ci", "good", "infer"),))) as server:
        ran = run("listen", "a.wav", "-m", "tiny", "--host", url(server))
    assert ran.code != 0
    assert "API key" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.wav",), "does not exist"),
        (("text.wav",), "is not a sound of a known format"),
        (("cut.flac",), "damaged"),
        (("slow.wav",), "between 8000 and 96000"),
    ],
)
def test_a_bad_source_is_an_error(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "cut.flac").write_bytes(b"fLaC" + bytes(100))
    write_wav(tmp_path / "slow.wav", bytes(200), rate=4000)
    ran = run("listen", *arguments, "-m", "tiny", "--host", "http://127.0.0.1:1")
    assert ran.code != 0
    assert words in ran.err
    assert "Traceback" not in ran.err


def test_a_microphone_needs_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", None)
    ran = run("listen", "-m", "tiny", "--host", "http://127.0.0.1:1")
    assert ran.code != 0
    assert "mullama[audio]" in ran.err
    assert "arecord" in ran.err


def test_a_terminal_shows_the_conversation(
    hearing: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    write_wav(tmp_path / "a.wav", TWO_TURNS)
    with pty_session(["listen", "a.wav", "-m", "tiny", "--host", url(hearing)], tmp_path) as session:
        for _ in range(2):
            session.read_until("tiny: ")
            session.read_until("Hello")
        session.read_until("listening")
        assert session.finish() == 0


# The parts without a server


def test_samples_of_every_width_and_of_several_channels_become_mono() -> None:
    assert mono(b"\x00\x10\x00\x20", 2, 1) == b"\x00\x10\x00\x20"
    assert mono(b"\x00\x10\x00\x30", 2, 2) == b"\x00\x20"
    assert mono(b"\x99\x00\x10", 3, 1) == b"\x00\x10"
    assert mono(b"\x99\x99\x00\x10", 4, 1) == b"\x00\x10"
    assert mono(b"\x80\x90", 1, 1) == b"\x00\x00\x00\x10"


def test_a_pipe_is_not_read_faster_than_it_is_spoken() -> None:
    slept: list[float] = []
    source = raw_source(io.BytesIO(bytes(32_001)), 16_000, clock=lambda: 0.0, sleep=slept.append)
    assert sum(map(len, source.pieces)) == 32_000  # the half of a sample at the end is left out
    assert slept == pytest.approx([0.1 * n for n in range(1, 9)] + [0.9], abs=0.05)


def test_a_pipe_with_a_header_is_refused() -> None:
    source = raw_source(io.BytesIO(b"RIFF" + bytes(4000)), 16_000)
    with pytest.raises(Invalid, match="raw samples are expected"):
        next(source.pieces)


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [("MP3", None, 44_100), ("FLAC", None, 192_000), ("OGG", "VORBIS", 16_000), ("WAV", "FLOAT", 48_000),
     ("WAV", "IMA_ADPCM", 8_000)],
)  # fmt: skip
def test_files_of_all_formats_are_samples_of_one_rate(
    tmp_path: Path, format: str, subtype: str | None, rate: int
) -> None:
    soundfile = pytest.importorskip("soundfile")
    sound = np.frombuffer(voice(1.0, rate), "<i2") / 32768
    soundfile.write(path := tmp_path / "a.sound", np.stack([sound] * 2, axis=1), rate, format=format, subtype=subtype)
    with ExitStack() as resources:
        source = file_source(path, resources)
        pieces = list(source.pieces)
    assert (source.rate, source.paced) == (16_000, True)
    assert {len(piece) for piece in pieces[:-1]} == {3200}
    heard = np.frombuffer(b"".join(pieces), "<i2") / 32768
    assert len(heard) == pytest.approx(16_000, abs=3000)  # MP3 has silence around the sound
    assert np.sqrt((heard**2).sum() / 16_000) == pytest.approx(np.sqrt((sound**2).mean()), rel=0.15)


def test_without_its_packages_another_format_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(100))
    for module, words in (("soundfile", "soundfile, which decodes it"), ("mullama.audio.resample", "not installed")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with ExitStack() as resources, pytest.raises(Unsupported, match=words) as caught:
            file_source(path, resources)
        assert "mullama[audio]" in str(caught.value.hint)


def done(status: str, **details: Any) -> dict[str, Any]:
    return {"type": "response.done", "response": {"status": status, "status_details": details}}


def test_the_state_of_a_conversation() -> None:
    spoken = Spoken()
    delta = "conversation.item.input_audio_transcription.delta"
    spoken.feed({"type": "session.created", "session": {"model": "tiny"}})
    spoken.feed({"type": "input_audio_buffer.speech_started"})
    assert spoken.state == "hearing you"
    spoken.feed({"type": "input_audio_buffer.committed", "item_id": "1"})
    assert spoken.pending
    spoken.feed({"type": delta, "delta": "Hel"})
    assert spoken.current == [SpokenLine(speaker="you", text="Hel")]
    whole = {"type": delta.replace("delta", "completed"), "transcript": "Hello "}
    assert spoken.feed(whole) == [SpokenLine(speaker="you", text="Hello")]
    spoken.feed({"type": "response.created"})
    spoken.feed({"type": "response.output_text.delta", "delta": "Once"})
    spoken.feed({"type": "input_audio_buffer.committed", "item_id": "2"})
    assert spoken.feed(done("cancelled")) == [SpokenLine(speaker="tiny", text="Once …")]
    assert spoken.pending, "the turn that interrupted it is not answered yet"
    spoken.feed({"type": "response.created"})
    spoken.feed({"type": "input_audio_buffer.committed", "item_id": "3"})
    assert spoken.feed(done("failed", error={"message": "no"})) == []
    assert spoken.pending, "a turn that an answer did not interrupt is answered after it"
    spoken.feed({"type": "response.created"})
    assert spoken.feed(done("completed")) == []
    assert spoken.errors == ["no"]
    assert not spoken.pending


def test_a_noise_is_no_turn_that_waits() -> None:
    spoken = Spoken()
    for turn in "12":
        spoken.feed({"type": "input_audio_buffer.committed", "item_id": turn})
    kind = "conversation.item.input_audio_transcription.completed"
    assert spoken.feed({"type": kind, "item_id": "2", "transcript": " "}) == []
    assert spoken.pending
    spoken.feed({"type": kind.replace("completed", "failed"), "item_id": "1", "error": {"message": "no"}})
    assert not spoken.pending
    assert spoken.state == "listening"
