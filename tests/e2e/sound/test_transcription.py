"""Speech to text by the official openai package: a server process, the process for sounds, and a scripted model.

The script knows each window of the sounds by its digest, so an answer shows which sound reached the model.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mullama.audio import FRAME, RATE, Samples
from mullama.audio.pcm import to_pcm
from mullama.audio.voice import VoiceSettings
from mullama.audio.windows import WindowCutter, WindowLimits
from mullama.chat.media.wav import wav_file
from tests.audio.sounds import noise, spoken
from tests.e2e.stack import Stack, stack_in
from tests.official_clients import openai

pytestmark = pytest.mark.timeout(120)

QUIET = noise(1.5, -80)
SENTENCES = ("The first sentence.", "And the second one.")
TWO = np.concatenate([QUIET, spoken(7), QUIET, spoken(5, pitch=180), QUIET])
LONG = spoken(14)  # no pause in three windows of six seconds
FULL = spoken(6, pitch=200)[: 187 * FRAME]  # the window is cut at the end of the sound
LONG_TEXTS = ("one two three four five six", "five six seven eight nine ten", "nine ten eleven twelve.")


def digests(sound: Samples, *, most: float = 30.0, enough: float) -> list[str]:
    """Return what the scripted model sees of each window."""
    decoded = np.frombuffer(to_pcm(sound), "<i2").astype(np.float32) / np.float32(2**15)
    cutter = WindowCutter(WindowLimits(most=most, enough=enough), VoiceSettings())
    windows = [*cutter.feed(decoded), *cutter.end()]
    return [hashlib.sha256(wav_file(to_pcm(window.samples))).hexdigest()[:8] for window in windows]


def rules(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"when": f"audio {digest}", "say": text} for digest, text in texts.items()]


def script() -> dict[str, Any]:
    texts = dict(zip(digests(TWO, enough=6.0), SENTENCES, strict=True))
    texts |= dict(zip(digests(TWO, enough=20.0), (" ".join(SENTENCES),), strict=True))
    return {"name": "ears", "media": ["audio"], "rules": [
        *rules(dict(zip(digests(LONG, most=6.0, enough=4.0), LONG_TEXTS, strict=True))),
        *rules(dict(zip(digests(FULL, most=6.0, enough=4.0), ("One two three.",), strict=True))),
        {"when": "Translate .*" + next(iter(texts)), "say": "In English."}, *rules(texts),
    ]}  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("speech")) as made:
        (made.home / "ears.script.json").write_text(json.dumps(script()))
        (made.home / "blind.script.json").write_text(json.dumps({"name": "blind"}))
        (made.home / "two.wav").write_bytes(wav_file(to_pcm(TWO)))
        energy = {"voice": {"detector": "energy"}}
        models: Any = {
            "ears": {"from": "./ears.script.json", "task": "transcription", "transcription": energy},
            "short": {"from": "./ears.script.json", "transcription": {"window": "6s", **energy}},
            "blind": {"from": "./blind.script.json", "transcription": energy},
        }
        made.write(
            models,
            server={"listen": ["127.0.0.1:0"], "limits": {"media": {"seconds": "60s", "sound": "4MiB"}}},
            routes={"whisper-1": {"to": "ears"}},
            observability={"captures": {}},
        )
        made.apply()
        yield made


@pytest.fixture(scope="module")
def gpt(stack: Stack) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0) as client:
        yield client


@pytest.fixture
def two(stack: Stack) -> Path:
    return stack.home / "two.wav"


def post(stack: Stack, files: Any, status: int = 200, path: str = "transcriptions", **fields: Any) -> Any:
    answer = httpx.post(f"{stack.url}/v1/audio/{path}", files=files, data={"model": "ears"} | fields, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()["error"] if status != 200 else answer


def test_json_and_text(gpt: Any, two: Path) -> None:
    found = gpt.audio.transcriptions.create(file=two, model="whisper-1")
    assert found.text == " ".join(SENTENCES)
    assert found.usage.type == "tokens"
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens > 20
    text = gpt.audio.transcriptions.create(file=two, model="ears", response_format="text", language="en", prompt="x")
    assert text == " ".join(SENTENCES) + "\n"


def test_verbose_json_has_segments(gpt: Any, two: Path) -> None:
    found = gpt.audio.transcriptions.create(
        file=two, model="ears", response_format="verbose_json", timestamp_granularities=["segment"], language="en",
        temperature=0.2,
    )  # fmt: skip
    assert (found.text, found.language, found.duration) == (" ".join(SENTENCES), "english", 16.5)
    assert [segment.text for segment in found.segments] == list(SENTENCES)
    assert [(s.start, s.end) for s in found.segments] == [
        pytest.approx((1.3, 8.7), abs=0.15), pytest.approx((9.8, 15.2), abs=0.15)
    ]  # fmt: skip
    first = found.segments[0]
    assert (first.id, first.temperature, first.seek) == (0, 0.2, round(first.start * 100))
    assert first.avg_logprob == pytest.approx(-0.01)
    assert 0.5 < first.compression_ratio < 1.5
    assert 0 <= first.no_speech_prob < 0.2
    assert len(first.tokens) == 7
    assert (found.usage.type, found.usage.seconds) == ("duration", 17)


def test_subtitles(gpt: Any, two: Path) -> None:
    srt = gpt.audio.transcriptions.create(file=two, model="ears", response_format="srt")
    assert [line for line in srt.splitlines() if line and "-->" not in line] == ["1", SENTENCES[0], "2", SENTENCES[1]]
    vtt = gpt.audio.transcriptions.create(file=two, model="ears", response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:01.")


def test_stream(gpt: Any, two: Path) -> None:
    events = list(gpt.audio.transcriptions.create(file=two, model="ears", stream=True, include=["logprobs"]))
    deltas, done = events[:-1], events[-1]
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 5
    assert "".join(event.delta for event in deltas) == done.text == " ".join(SENTENCES)
    assert done.usage.output_tokens == len(done.logprobs)
    verbose = gpt.audio.transcriptions.create(file=two, model="ears", stream=True, response_format="verbose_json")
    segments = [event for event in verbose if event.type == "transcript.text.segment"]
    assert [segment.text for segment in segments] == list(SENTENCES)


@pytest.mark.filterwarnings("ignore:deprecated")
def test_translation(gpt: Any, two: Path) -> None:
    found = gpt.audio.translations.create(file=two, model="ears", response_format="verbose_json")
    assert (found.text, found.language) == (f"In English. {SENTENCES[1]}", "english")


@pytest.mark.parametrize("form", ["json", "verbose_json"])
def test_windows_that_are_cut_in_speech_are_joined(gpt: Any, stack: Stack, form: Any) -> None:
    sound = ("long.wav", wav_file(to_pcm(LONG)))
    found = gpt.audio.transcriptions.create(file=sound, model="short", response_format=form)
    assert found.text == "one two three four five six seven eight nine ten eleven twelve."
    streamed = list(gpt.audio.transcriptions.create(file=sound, model="short", response_format=form, stream=True))
    assert "".join(event.delta for event in streamed if event.type == "transcript.text.delta") == found.text
    if form == "verbose_json":
        assert " ".join(segment.text for segment in found.segments) == found.text
        assert all(one.end <= two.start + 1e-6 for one, two in itertools.pairwise(found.segments))


def test_a_sound_that_ends_where_its_window_is_cut_keeps_its_words_and_their_facts(gpt: Any) -> None:
    sound = ("full.wav", wav_file(to_pcm(FULL)))
    found = gpt.audio.transcriptions.create(file=sound, model="short", response_format="verbose_json")
    [segment] = found.segments
    assert found.text == segment.text == "One two three."
    assert (segment.start, segment.end) == (pytest.approx(0, abs=0.1), pytest.approx(found.duration, abs=0.01))
    assert segment.tokens
    assert segment.avg_logprob == pytest.approx(-0.01)
    events = list(
        gpt.audio.transcriptions.create(file=sound, model="short", response_format="verbose_json", stream=True)
    )
    assert [event.text for event in events if event.type == "transcript.text.segment"] == ["One two three."]


def test_settings_of_voice_activity(gpt: Any, two: Path) -> None:
    strategy: Any = {"type": "server_vad", "threshold": 1.0, "silence_duration_ms": 100}
    assert gpt.audio.transcriptions.create(file=two, model="ears", chunking_strategy=strategy).text == ""
    assert gpt.audio.transcriptions.create(file=two, model="ears", chunking_strategy="auto").text


@pytest.mark.parametrize(("form", "text"), [("json", ""), ("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n")])
def test_silence_has_no_text(stack: Stack, form: str, text: str) -> None:
    answer = post(stack, {"file": wav_file(bytes(4 * RATE))}, response_format=form)
    assert (answer.json()["text"] if form == "json" else answer.text) == text


def test_formats(stack: Stack, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for format in ("FLAC", "MP3", "OGG"):
        soundfile.write(path := tmp_path / "a.sound", spoken(3), RATE, format=format)
        assert "[audio " in post(stack, {"file": path.read_bytes()}).json()["text"]


GOOD = wav_file(to_pcm(spoken(1)))


@pytest.mark.parametrize(
    ("files", "fields", "status", "param", "message"),
    [
        ({"file": b"\x89PNG\r\n\x1a\n"}, {}, 400, "file", "not a sound of a known format"),
        ({"file": b"RIFF\x24\0\0\0WAVEfmt "}, {}, 400, "file", "damaged"),
        ({"file": b"ID3" + bytes(500)}, {}, 400, "file", "damaged"),
        ({"file": b""}, {}, 400, "file", "file is empty"),
        ({"other": GOOD}, {}, 400, "file", "file is required"),
        ({"file": GOOD, "more": GOOD}, {}, 400, None, "one file"),
        ({"file": wav_file(bytes(122 * RATE))}, {}, 413, None, "more than 60 s"),
        ({"file": bytes(6 * 2**20)}, {}, 413, None, "larger than"),
        ({"file": GOOD}, {"model": "blind"}, 400, "model", "does not hear"),
        ({"file": GOOD}, {"model": "none"}, 404, None, "does not exist"),
        ({"file": GOOD}, {"language": "klingon"}, 400, "language", "not known"),
        ({"file": GOOD}, {"temperature": "warm"}, 400, "temperature", "a number from 0 to 100"),
        ({"file": GOOD}, {"temperature": "101"}, 400, "temperature", "a number from 0 to 100"),
        ({"file": GOOD}, {"response_format": "xml"}, 400, "response_format", "one of json"),
        ({"file": GOOD}, {"response_format": "diarized_json"}, 400, "response_format", "speakers"),
        ({"file": GOOD}, {"response_format": "srt", "stream": "true"}, 400, "stream", "cannot be streamed"),
        ({"file": GOOD}, {"timestamp_granularities[]": "word"}, 400, "timestamp_granularities", "no times of words"),
        ({"file": GOOD}, {"chunking_strategy": "{"}, 400, "chunking_strategy", "JSON"),
        ({"file": GOOD}, {"known_speaker_names[]": "x"}, 400, "known_speaker_names", "speakers"),
        ({"file": GOOD}, {"colour": "red"}, 400, "colour", "no parameter"),
        ({"file": GOOD}, {"prompt": "x" * 9000}, 413, None, "9000 characters"),
    ],
)  # fmt: skip
def test_bad_requests(
    stack: Stack, files: Any, fields: dict[str, str], status: int, param: str | None, message: str
) -> None:
    error = post(stack, files, status, **fields)
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] in ("invalid_request_error", "not_found_error")


def test_bodies_that_are_no_forms(stack: Stack) -> None:
    url = f"{stack.url}/v1/audio/transcriptions"
    for content, kind in (
        (b"{}", "application/json"), (b"x", "multipart/form-data"), (b"--y", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary=x"), (b"x", ""),
    ):  # fmt: skip
        answer = httpx.post(url, content=content, headers={"content-type": kind})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_model_for_transcription_answers_no_conversation(stack: Stack, gpt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="declared for transcription"):
        gpt.chat.completions.create(model="ears", messages=[{"role": "user", "content": "Hi"}])
    listed = {model.id: model.to_dict() for model in gpt.models.list()}
    assert {"audio", "transcription"} <= set(listed["ears"]["capabilities"])
    assert "completion" not in listed["ears"]["capabilities"]


def test_a_transcription_is_one_request_of_the_usage(stack: Stack, two: Path) -> None:
    def used() -> dict[str, Any]:
        rows: Any = httpx.get(f"{stack.url}/api/v1/usage").json()
        return {name: sum(row[name] for row in rows["rows"]) for name in ("requests", "prompt_tokens")}

    before = used()
    post(stack, {"file": two.read_bytes()}, response_format="verbose_json")
    after = used()
    assert after["requests"] == before["requests"] + 1
    assert after["prompt_tokens"] > before["prompt_tokens"]


def test_a_realtime_session_answers_what_another_model_transcribes(stack: Stack, gpt: Any) -> None:
    pcm, text = to_pcm(TWO), " ".join(SENTENCES)
    with gpt.realtime.connect(model="blind", websocket_connection_options={"proxy": None}) as connection:
        sound = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": None}
        connection.session.update(session={"type": "realtime", "audio": {"input": sound}})
        for at in range(0, len(pcm), 2 * RATE):
            connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + 2 * RATE]).decode())
        connection.input_audio_buffer.commit()
        connection.response.create()
        events = []
        for event in connection:
            events.append(event)
            if event.type == "response.done":
                break
    done = next(e for e in events if e.type == "conversation.item.input_audio_transcription.completed")
    assert done.transcript == text
    assert done.usage.seconds == pytest.approx(16.5, abs=0.1)
    assert events[-1].response.output[0].content[0].text == text


@pytest.mark.parametrize("remote", [False, True], ids=["by the socket of this machine", "by TCP"])
def test_listen_prints_the_speech_and_the_answers(stack: Stack, remote: bool) -> None:
    host = ("--host", stack.url) if remote else ()
    ran = stack.run("listen", "two.wav", "-m", "blind", *host, "--pause", "300")
    lines = ran.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["you", "blind"] * 2, ran
