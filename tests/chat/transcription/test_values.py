"""Subtitles, languages, prompts and the reader of answers, by tables of values."""

from __future__ import annotations

import pytest

from mullama.chat.transcription import Segment
from mullama.chat.transcription.languages import LANGUAGES, language_name
from mullama.chat.transcription.prompts import (
    TranscriptionPrompt,
    TranscriptReader,
    filled,
    messages_for,
    prompt_for,
)
from mullama.chat.transcription.subtitles import srt, vtt
from mullama.chat.types import MediaPart, TextPart
from mullama.errors import Invalid

SEGMENTS = (
    Segment(index=0, start=0.0, end=1.2345, text="Hello <you> & me."),
    Segment(index=1, start=3599.9996, end=3725.5, text="Two\n\nlines"),
)


def test_srt() -> None:
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,234\nHello <you> & me.\n\n2\n01:00:00,000 --> 01:02:05,500\nTwo lines\n\n"
    )
    assert srt(()) == ""


def test_vtt() -> None:
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nHello &lt;you&gt; &amp; me.\n\n"
        "01:00:00.000 --> 01:02:05.500\nTwo lines\n\n"
    )
    assert vtt(()) == "WEBVTT\n\n"


@pytest.mark.parametrize(
    ("asked", "name"),
    [("en", "English"), ("EN", "English"), ("pt-BR", "Portuguese"), ("zh_TW", "Chinese"), ("German", "German"),
     (" french ", "French"), ("yue", "Cantonese")],
)  # fmt: skip
def test_language(asked: str, name: str) -> None:
    assert language_name(asked) == name


@pytest.mark.parametrize("asked", ["", "xx", "klingon", "e n", "x" * 1000])
def test_unknown_language(asked: str) -> None:
    with pytest.raises(Invalid, match="is not known") as error:
        language_name(asked)
    assert len(str(error.value)) < 120


def test_there_are_whispers_languages() -> None:
    assert len(LANGUAGES) == 100


@pytest.mark.parametrize(
    ("template", "language", "text"),
    [
        ("Write[ in {language}].", "German", "Write in German."),
        ("Write[ in {language}].", "", "Write."),
        ("Write {language} [sic]", "", "Write its language [sic]"),
        ("", "German", ""),
    ],
)
def test_filled(template: str, language: str, text: str) -> None:
    assert filled(template, language) == text


def parts(projector: str, **more: object) -> list[str]:
    asked = {"language": "", "translate": False, "context": ""} | more
    messages = messages_for(prompt_for(projector, None, None), b"RIFF", **asked)  # type: ignore[arg-type]
    return [
        part.text if isinstance(part, TextPart) else f"<{part.kind}>"
        for message in messages
        for part in message.content
    ]


@pytest.mark.parametrize(
    ("projector", "more", "expected"),
    [
        ("ultravox", {}, ["Transcribe the audio to text. Write only the words that are spoken.", "<audio>"]),
        ("ultravox", {"language": "French", "translate": True},
         ["Translate the speech in the audio from French into English. Write only the translation.", "<audio>"]),
        ("ultravox", {"context": "Mullama"},
         ["Transcribe the audio to text. Write only the words that are spoken.\n"
          "These names and words may occur: Mullama", "<audio>"]),
        ("qwen3a", {"context": "Mullama"}, ["Mullama", "<audio>"]),
        ("lfm2a", {}, ["Perform ASR.", "<audio>"]),
        ("gemma4a", {"language": "German"},
         ["Transcribe the following speech segment in German into German text:", "<audio>"]),
        ("granite_speech", {}, ["<audio>", "can you transcribe the speech into a written format?"]),
    ],
)  # fmt: skip
def test_messages(projector: str, more: dict[str, object], expected: list[str]) -> None:
    assert parts(projector, **more) == expected


def test_the_manifest_replaces_the_texts() -> None:
    prompt = prompt_for("lfm2a", "Write it down.", None)
    assert prompt == TranscriptionPrompt(instruction="Write it down.", translation=prompt.translation)
    (message,) = messages_for(prompt, b"", language="", translate=False, context="")
    assert message.content[-1] == MediaPart(kind="audio", data=b"")


@pytest.mark.parametrize(
    ("pieces", "text", "language"),
    [
        (["Hello ", "you"], "Hello you", ""),
        (["lang", "uage English<asr", "_text>Hello", " you"], "Hello you", "English"),
        (["language None<asr_text>"], "", ""),
        (["language is fun"], "language is fun", ""),
        (["language " + "is a long word " * 9], "language " + "is a long word " * 9, ""),
        (["lan"], "lan", ""),
        ([], "", ""),
    ],
)
def test_reader(pieces: list[str], text: str, language: str) -> None:
    reader = TranscriptReader()
    assert "".join([*(reader.feed(piece) for piece in pieces), reader.end()]) == text
    assert reader.language == language
