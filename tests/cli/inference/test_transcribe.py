"""`mullama transcribe` with a server that answers from a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.media.wav import wav_file
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]
SOUND = wav_file(bytes(3200))
SEGMENTS: list[dict[str, Any]] = [
    {"id": 0, "start": 0.0, "end": 1.5, "text": "One."}, {"id": 1, "start": 2.0, "end": 3.0, "text": "Two."}
]  # fmt: skip
DONE = {"type": "transcript.text.done", "text": "One. Two.", "duration": 3.5, "language": "english",
        "segments": SEGMENTS}  # fmt: skip


def events(*items: object) -> Answer:
    return Answer(pieces=tuple(b"data: " + json.dumps(item).encode() + b"\n\n" for item in items))


@pytest.fixture(autouse=True)
def server(tiny: TinyServer) -> None:
    tiny.answers["GET /api/models"] = Answer({"models": [
        {"name": "talks", "capabilities": ["completion"]}, {"name": "ears", "capabilities": ["transcription", "audio"]},
        {"name": "whisper-1", "capabilities": ["transcription", "audio"], "route_of": "ears"},
    ]})  # fmt: skip
    for name in ("ears", "m"):
        tiny.answers[f"GET /api/models/{name}"] = Answer({"name": name, "capabilities": ["audio"]})
    shown = {"type": "transcript.text.segment", **SEGMENTS[0]}
    answer = events({"type": "transcript.text.delta", "delta": "One."}, shown, DONE)
    tiny.answers["POST /api/models/transcribe"] = tiny.answers["POST /api/models/translate"] = answer


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(SOUND)
    return path


def test_text_is_printed_and_the_summary_is_on_stderr(run: Run, tiny: TinyServer, wav: Path) -> None:
    ran = run("transcribe", str(wav), "--host", tiny.url, "--language", "en", "-t", "0.5", "--prompt", "Ada")
    assert (ran.code, ran.out) == (0, "One. Two.\n")
    assert "3.5 s of sound in" in ran.err
    assert "2 segments" in ran.err
    body = tiny.asked[-1].raw
    for part in (b'name="model"\r\n\r\nears\r\n', b"\r\n\r\nen\r\n", b"\r\n\r\n0.5\r\n", b"Ada", SOUND,
                 b'filename="talk.wav"', b'name="stream"\r\n\r\ntrue'):  # fmt: skip
        assert part in body


@pytest.mark.parametrize(
    ("abilities", "used"),
    [
        ({"a": ["completion"], "b": ["audio"]}, "b"),
        ({"a": ["audio"], "b": ["transcription", "audio"]}, "b"),
        ({"ears": ["transcription"], "b": ["transcription"]}, "ears"),
        ({"ears": ["audio"], "b": ["audio"]}, "ears"),
        ({"a": ["transcription"], "b": ["transcription"], "ears": ["audio"]}, None),
    ],
)
def test_the_model_is_the_one_that_transcribes_or_hears(
    run: Run, tiny: TinyServer, wav: Path, abilities: dict[str, list[str]], used: str | None
) -> None:
    """The default model is `ears`."""
    tiny.answers["GET /api/models"] = Answer({"models": [
        {"name": name, "capabilities": able, "is_default": name == "ears"} for name, able in abilities.items()
    ]})  # fmt: skip
    tiny.answers["GET /api/models/b"] = Answer({"name": "b", "capabilities": ["audio"]})
    ran = run("transcribe", str(wav), "--host", tiny.url)
    if used is None:
        assert ran.code != 0
        assert "several models transcribe: a, b" in ran.err
    else:
        assert ran.code == 0, ran.err
        assert f'name="model"\r\n\r\n{used}\r\n'.encode() in tiny.asked[-1].raw


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n00:00:02,000 --> 00:00:03,000\nTwo.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne.\n\n00:00:02.000 --> 00:00:03.000\nTwo.\n\n"),
        ("json", '{"text": "One. Two."}\n'),
    ],
)
def test_formats(run: Run, tiny: TinyServer, wav: Path, form: str, text: str) -> None:
    assert run("transcribe", str(wav), "--host", tiny.url, "--format", form, "-q", "-m", "m").out == text


def test_translation_and_output_files(run: Run, tiny: TinyServer, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "other.wav").write_bytes(SOUND)
    ran = run("transcribe", str(wav), str(tmp_path / "other.wav"), "--host", tiny.url, "--translate",
              "--format", "srt", "-o", str(tmp_path / "out"), "-q")  # fmt: skip
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other.srt", "talk.srt"]
    assert tiny.asked[-1].path == "/api/models/translate"


def test_mistakes(run: Run, tiny: TinyServer, wav: Path, tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        ran = run("transcribe", "--host", tiny.url, *arguments)
        assert ran.code != 0
        assert "Traceback" not in ran.err
        return ran.err

    assert "does not exist" in fails(str(tmp_path / "none.wav"))
    assert "cannot be read" in fails(str(tmp_path))
    assert "is no folder" in fails(str(wav), str(wav), "-o", str(tmp_path / "none"))
    assert "one file" in fails("-", "-")
    assert "leave --language out" in fails(str(wav), "--translate", "--language", "de")
    tiny.answers["POST /api/models/transcribe"] = events({"error": {"message": "it broke"}})
    assert "talk.wav: it broke" in fails(str(wav))
    refused = {"error": {"kind": "invalid", "message": "file is a damaged sound", "hint": "send it again"}}
    tiny.answers["POST /api/models/transcribe"] = Answer(refused, 400)
    assert "damaged sound" in fails(str(wav))
