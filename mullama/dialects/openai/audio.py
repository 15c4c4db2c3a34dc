"""OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations`: a form with a sound in, its text out."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.chat.transcription import (
    Segment,
    SegmentFinished,
    SoundFile,
    Transcribed,
    Transcript,
    TranscriptionRequest,
    VoiceOverrides,
)
from mullama.chat.transcription.languages import language_name
from mullama.chat.transcription.subtitles import srt, vtt
from mullama.chat.types import TextDelta, TokenLogprob, Usage
from mullama.dialects import fields, schema
from mullama.dialects.base import Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.openai.streams import EventStream
from mullama.dialects.sampling import KEEP_ALIVE
from mullama.errors import Invalid, TooLarge, Unsupported
from mullama.names import JSONValue

TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
_FORMATS: tuple[TranscriptFormat, ...] = ("json", "text", "srt", "verbose_json", "vtt")
_TEMPERATURE = SAMPLING_FIELDS["temperature"]
_TIMED = ("srt", "verbose_json", "vtt")
_MOST_PROMPT = 8192
_KNOWN = frozenset({
    "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities", "include", "stream",
    "chunking_strategy", "keep_alive", "user",
})  # fmt: skip
_TRANSLATION = _KNOWN - {"language", "timestamp_granularities", "include", "chunking_strategy"}
_NO_SPEAKERS = "mullama does not tell speakers apart"
_REFUSED = {
    "known_speaker_names": _NO_SPEAKERS,
    "known_speaker_references": _NO_SPEAKERS,
    "keywords": "send the words in prompt",
    "languages": "send one code in language",
}


class TranscriptionCall(TranscriptionRequest, frozen=True, kw_only=True):
    """A transcription; the format is that of the answer."""

    format: TranscriptFormat = "json"


def decode(request: WireRequest) -> TranscriptionCall:
    """Decode a transcription. Raises `Invalid` and `Unsupported` for what no answer can honour."""
    return _decoded(request, translate=False)


def decode_translation(request: WireRequest) -> TranscriptionCall:
    """Decode a translation into English."""
    return _decoded(request, translate=True)


def _decoded(request: WireRequest, *, translate: bool) -> TranscriptionCall:
    body = fields.body_of(request.body)
    _check_names(body, _TRANSLATION if translate else _KNOWN)
    sound = _sound(request.files, body)
    form = _format(body)
    stream = _flag(body, "stream")
    if stream and form in ("srt", "vtt"):
        raise Unsupported(
            f"response_format {form} cannot be streamed", hint="send stream=false, or another format", field="stream"
        )
    language = _text(body, "language", 64)
    if language:
        language_name(language)  # an unknown one is an error of the request, whatever the sound
    include = _texts(body, "include")
    if unknown := [name for name in include if name != "logprobs"]:
        raise Invalid(f"include has {unknown[0][:40]!r}, and knows logprobs", field="include")
    granularities = _texts(body, "timestamp_granularities")
    if "word" in granularities:
        raise Unsupported(
            "timestamp_granularities: the models of llama.cpp give no times of words",
            hint="send segment", field="timestamp_granularities",
        )  # fmt: skip
    if unknown := [name for name in granularities if name != "segment"]:
        raise Invalid(f"timestamp_granularities has {unknown[0][:40]!r}", field="timestamp_granularities")
    return TranscriptionCall(
        model=_text(body, "model", fields.MOST_NAME),
        sound=sound,
        translate=translate,
        language=language or None,
        prompt=_text(body, "prompt", _MOST_PROMPT),
        temperature=_number(body, "temperature", _TEMPERATURE.low, _TEMPERATURE.high),
        logprobs="logprobs" in include or form == "verbose_json",
        timed=form in _TIMED,
        voice=_voice(body),
        stream=stream,
        keep_alive=body.get(KEEP_ALIVE),
        format=form,
    )


def _check_names(body: fields.Body, known: frozenset[str]) -> None:
    for name in body.names():
        if name in _REFUSED:
            raise Unsupported(f"{name} is not supported", hint=_REFUSED[name], field=name)
        if name not in known:
            raise Invalid(f"{name[:80]} is no parameter of this endpoint", field=name[:80])


def _sound(files: Mapping[str, SoundFile], body: fields.Body) -> SoundFile:
    """Return the file, or raise `Invalid`: its content is checked where it is decoded."""
    if (sound := files.get("file")) is None:
        sent = "as text" if body.has("file") else "not at all"
        raise Invalid(f"file is required, and was sent {sent}", hint="send a sound as a file of the form", field="file")
    if not sound.size:
        raise Invalid("file is empty", hint="send a sound", field="file")
    return sound


def _text(body: fields.Body, name: str, most: int) -> str:
    value = body.raw(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise fields.unfit(name, "one text")
    if len(value) > most:
        raise TooLarge(f"{name} has {len(value)} characters, and {most} are the most")
    return value


def _texts(body: fields.Body, name: str) -> list[str]:
    value = body.raw(name)
    if value is None:
        return []
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _format(body: fields.Body) -> TranscriptFormat:
    name = "response_format"
    text = _text(body, name, 64) or "json"
    if text == "diarized_json":
        raise Unsupported(f"{name} {text} is not supported", hint=_NO_SPEAKERS, field=name)
    for known in _FORMATS:
        if text == known:
            return known
    raise fields.unfit(name, f"one of {', '.join(_FORMATS)}")


def _flag(body: fields.Body, name: str) -> bool:
    text = _text(body, name, 16).lower()
    if text not in ("", "true", "false", "1", "0"):
        raise fields.unfit(name, "true or false")
    return text in ("true", "1")


def _number(body: fields.Body, name: str, low: float, high: float) -> float | None:
    text = _text(body, name, 64)
    return _to_number(text, name, low, high) if text else None


def _to_number(value: JSONValue, path: str, low: float, high: float) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise fields.unfit(path, f"a number from {low:g} to {high:g}")
    return number


def _voice(body: fields.Body) -> VoiceOverrides:
    """Return the settings of voice activity: `auto`, or an object of the type `server_vad`, also as JSON."""
    name = "chunking_strategy"
    value = body.raw(name)
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise fields.unfit(name, "auto or a JSON object") from error
    if value in (None, "", "auto"):
        return VoiceOverrides()
    if not isinstance(value, Mapping) or value.get("type") != "server_vad":
        raise fields.unfit(name, "auto or an object with the type server_vad")

    def number(member: str, high: float) -> float | None:
        return None if (given := value.get(member)) is None else _to_number(given, f"{name}.{member}", 0, high)

    def duration(member: str) -> float | None:
        return None if (given := number(member, 60_000)) is None else given / 1000

    return VoiceOverrides(
        threshold=number("threshold", 1), silence=duration("silence_duration_ms"), pad=duration("prefix_padding_ms")
    )


def encode(context: ReplyContext[TranscriptionCall, Transcript]) -> Reply:
    """Return the transcript in the format of the request."""
    call, result = context.operation, context.result
    match call.format:
        case "text":
            return Reply(body=result.text + "\n")
        case "srt":
            return Reply(body=srt(result.segments))
        case "vtt":
            return Reply(body=vtt(result.segments))
        case "verbose_json":
            return Reply(body=_verbose(call, result))
        case "json":
            body: dict[str, JSONValue] = {"text": result.text}
            if call.logprobs:
                body["logprobs"] = _logprobs(token for segment in result.segments for token in segment.tokens)
            return Reply(body=body | {"usage": _usage(result.usage)})


def _verbose(call: TranscriptionCall, result: Transcript) -> dict[str, JSONValue]:
    segments: list[JSONValue] = [
        {
            "id": segment.index,
            "seek": round(segment.start * 100),
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.text,
            "tokens": [token.id for token in segment.tokens],
            "temperature": segment.temperature,
            "avg_logprob": segment.mean_logprob,
            "compression_ratio": _compression(segment),
            "no_speech_prob": round(1 - segment.voice, 4),
        }
        for segment in result.segments
    ]
    return {
        "task": "translate" if call.translate else "transcribe",
        "language": ("English" if call.translate else result.language).lower(),
        "duration": round(result.duration, 3),
        "text": result.text,
        "segments": segments,
        "usage": {"type": "duration", "seconds": math.ceil(result.duration)},
    }


def _compression(segment: Segment) -> float:
    """Return how much shorter zlib makes the text, as Whisper does: an answer that repeats itself has a high ratio."""
    data = segment.text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))


def _usage(usage: Usage) -> JSONValue:
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[JSONValue]:
    return [{"token": token.text, "bytes": list(token.bytes), "logprob": token.logprob} for token in tokens]


class TranscriptStream(EventStream):
    """The events of a transcription: deltas of the text, then the whole text.

    `verbose_json` adds an event for each segment, and the members of its body to the last event.
    """

    def __init__(self, context: ReplyContext[TranscriptionCall, None]) -> None:
        self._call = context.operation

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        verbose = self._call.format == "verbose_json"
        match event:
            case TextDelta():
                delta: dict[str, JSONValue] = {"type": "transcript.text.delta", "delta": event.text}
                if self._call.logprobs and not verbose:
                    delta["logprobs"] = _logprobs(event.logprobs)
                yield Frame(data=delta)
            case SegmentFinished(segment=segment) if verbose:
                yield Frame(data={
                    "type": "transcript.text.segment", "id": f"seg_{segment.index}", "start": round(segment.start, 3),
                    "end": round(segment.end, 3), "text": segment.text, "speaker": "",
                })  # fmt: skip
            case Transcribed(transcript=result) if not self._ended:
                self._ended = True
                done: dict[str, JSONValue] = {"type": "transcript.text.done", "text": result.text}
                if verbose:
                    done |= _verbose(self._call, result)
                elif self._call.logprobs:
                    done["logprobs"] = _logprobs(token for segment in result.segments for token in segment.tokens)
                yield Frame(data=done | {"usage": _usage(result.usage)})
            case _:
                pass


_TEXT = schema.STRING
_FORM: dict[str, schema.Schema] = {
    "file": {"type": "string", "format": "binary"},
    "model": _TEXT,
    "prompt": _TEXT,
    "response_format": schema.one_of(*_FORMATS),
    "temperature": {"type": "number", "minimum": _TEMPERATURE.low, "maximum": _TEMPERATURE.high},
    "stream": schema.BOOLEAN,
}
TRANSLATION_SCHEMA = schema.record("file", **_FORM)
REQUEST_SCHEMA = schema.record(
    "file",
    **_FORM,
    language=_TEXT,
    **{
        "timestamp_granularities[]": schema.listed(schema.one_of("segment")),
        "include[]": schema.listed(schema.one_of("logprobs")),
    },
    chunking_strategy=schema.either(schema.constant("auto"), schema.record("type", type=_TEXT)),
)
_USAGE = schema.record("type", type=_TEXT)
_SEGMENT = schema.exact(
    id=schema.COUNT, seek=schema.COUNT, start=schema.NUMBER, end=schema.NUMBER, text=_TEXT,
    tokens=schema.listed(schema.COUNT), temperature=schema.NUMBER, avg_logprob=schema.NUMBER,
    compression_ratio=schema.NUMBER, no_speech_prob=schema.NUMBER,
)  # fmt: skip
RESPONSE_SCHEMA = schema.either(
    schema.record("text usage", text=_TEXT, usage=_USAGE, logprobs=schema.listed(schema.RECORD)),
    schema.exact(
        task=_TEXT, language=_TEXT, duration=schema.NUMBER, text=_TEXT, segments=schema.listed(_SEGMENT), usage=_USAGE
    ),
    _TEXT,
)
