"""The settings of a realtime session: those that clients change, and their checks."""

from __future__ import annotations

from typing import Literal

from mullama.chat.types import Tool, ToolChoice
from mullama.dialects import fields
from mullama.dialects.formats import effort
from mullama.dialects.openai.realtime.sounds import SoundFormat
from mullama.dialects.openai.responses.tools import TOOLS, known_tools
from mullama.dialects.sampling import MOST_TOKEN, number_field
from mullama.dialects.tools import TOOL_CHOICE, checked_choice
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue
from mullama.struct import Struct, replace

_INSTRUCTIONS = fields.text("instructions")
_TEMPERATURE = number_field("temperature")
_THRESHOLD = fields.number("threshold", 0.0, 1.0)
_PADDING = fields.integer("prefix_padding_ms", 0, 5_000)
_SILENCE = fields.integer("silence_duration_ms", 50, 10_000)
_CREATE = fields.flag("create_response")
_INTERRUPT = fields.flag("interrupt_response")
_TURN_FIELDS = (_THRESHOLD, _PADDING, _SILENCE, _CREATE, _INTERRUPT)
_LANGUAGE = fields.text("language", 32)
_PROMPT = fields.text("prompt", 4_096)

_OLD_PLACES = {
    "modalities": "session.output_modalities",
    "input_audio_format": "session.audio.input.format",
    "output_audio_format": "session.audio.output.format",
    "input_audio_transcription": "session.audio.input.transcription",
    "turn_detection": "session.audio.input.turn_detection",
    "max_response_output_tokens": "session.max_output_tokens",
}
"""Fields of the beta of the API, by their names of today."""


class TurnDetection(Struct, frozen=True, kw_only=True):
    """How the server finds the turns of the speaker."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    """Sound before the begin of speech that belongs to the turn."""
    silence_duration_ms: int = 500
    """Silence that ends a turn."""
    create_response: bool = True
    """Answer at the end of a turn."""
    interrupt_response: bool = True
    """Cancel the answer in progress at the begin of a turn."""

    @classmethod
    def read(cls, value: JSONValue, path: str, before: TurnDetection) -> TurnDetection:
        """Return the settings of the wire form over those before."""
        body = fields.Body(value, path)
        kind = body.raw("type")
        if kind == "semantic_vad":
            raise Unsupported(
                f"{path}.type: semantic_vad is not supported: the server finds turns by silence",
                hint="use server_vad, or null and input_audio_buffer.commit", field=f"{path}.type",
            )  # fmt: skip
        if kind not in (None, "server_vad"):
            raise fields.unfit(f"{path}.type", "server_vad")
        if body.has("idle_timeout_ms"):
            place = body.at("idle_timeout_ms")
            raise Unsupported(f"{place} is not supported", hint="send response.create after a pause", field=place)
        given: dict[str, float | None] = {field.name: body.get(field) for field in _TURN_FIELDS}
        return replace(before, **{name: value for name, value in given.items() if value is not None})

    def shown(self) -> dict[str, JSONValue]:
        """Return the wire form."""
        return {
            "type": "server_vad", "threshold": self.threshold, "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms, "create_response": self.create_response,
            "interrupt_response": self.interrupt_response, "idle_timeout_ms": None,
        }  # fmt: skip


class TranscriptSettings(Struct, frozen=True, kw_only=True):
    """How the input is transcribed."""

    model: str
    language: str | None = None
    prompt: str | None = None

    def shown(self) -> dict[str, JSONValue]:
        """Return the wire form."""
        return {"model": self.model, "language": self.language, "prompt": self.prompt}


class SessionSettings(Struct, frozen=True, kw_only=True):
    """The settings of a session, and those of one response over them."""

    model: str
    kind: Literal["realtime", "transcription"] = "realtime"
    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    wire_tools: JSONValue = ()
    wire_choice: JSONValue = "auto"
    max_tokens: int | None = None
    """None for as many as the model may generate."""
    temperature: float | None = None
    think: bool | str | None = None
    format: SoundFormat = SoundFormat()
    turns: TurnDetection | None = TurnDetection()
    """None while the client ends its turns itself."""
    transcript: TranscriptSettings | None = None

    def updated(self, value: JSONValue) -> SessionSettings:
        """Return the settings after a `session.update`. Raises `Invalid` with the path of the field."""
        body = fields.Body(value, "session")
        for old, new in _OLD_PLACES.items():
            if body.has(old):
                raise Invalid(f"session.{old} is a field of the beta", hint=f"send {new}", field=f"session.{old}")
        kind = body.raw("type")
        if kind not in (None, self.kind):
            raise fields.unfit("session.type", f"{self.kind}: a session keeps its type")
        if (model := body.get(fields.MODEL)) not in (None, self.model):
            raise fields.unfit("session.model", f"{self.model!r}, not {model[:80]!r}: a session keeps its model")
        changed = self.over(body)
        audio = body.child("audio")
        sound = audio.child("input") if audio else None
        return changed._with_input(sound) if sound else changed

    def over(self, body: fields.Body) -> SessionSettings:
        """Return the settings with those members of a session or of one response that change answers."""
        if body.has("prompt"):
            place = body.at("prompt")
            raise Unsupported(f"{place}: no prompts are stored", hint="send instructions", field=place)
        _check_modalities(body)
        changed = replace(
            self,
            instructions=self.instructions if (text := body.get(_INSTRUCTIONS)) is None else text,
            max_tokens=_max_tokens(body, self.max_tokens),
            temperature=self.temperature if (given := body.get(_TEMPERATURE)) is None else given,
        )
        if (reasoning := body.child("reasoning")) is not None:
            changed = replace(changed, think=reasoning.get(effort("effort")))
        if body.raw("tools") is not None:
            tools = tuple(known.tool for known in known_tools(body))
            changed = replace(changed, tools=tools, wire_tools=body.get(TOOLS) or ())
        if body.raw("tool_choice") is not None:
            checked = checked_choice(body.get(TOOL_CHOICE), changed.tools, body.at("tool_choice"))
            changed = replace(changed, tool_choice=checked, wire_choice=body.raw("tool_choice"))
        elif body.raw("tools") is not None:
            checked_choice(changed.tool_choice, changed.tools, body.at("tool_choice"))
        return changed

    def _with_input(self, sound: fields.Body) -> SessionSettings:
        changed = self
        if sound.raw("format") is not None:
            changed = replace(changed, format=SoundFormat.read(sound.raw("format"), sound.at("format")))
        if sound.holds("turn_detection"):
            value = sound.raw("turn_detection")
            path = sound.at("turn_detection")
            before = self.turns or TurnDetection()
            changed = replace(changed, turns=None if value is None else TurnDetection.read(value, path, before))
        if sound.holds("transcription"):
            changed = replace(changed, transcript=_transcript(sound.child("transcription"), self.transcript))
        return changed

    def shown(self, id: str) -> dict[str, JSONValue]:
        """Return the session object of the wire."""
        sound: dict[str, JSONValue] = {
            "format": self.format.shown(),
            "transcription": self.transcript.shown() if self.transcript else None,
            "noise_reduction": None,
            "turn_detection": self.turns.shown() if self.turns else None,
        }
        noun = "session" if self.answers else "transcription_session"
        head: dict[str, JSONValue] = {"id": id, "object": f"realtime.{noun}"}
        if not self.answers:
            return {**head, "type": "transcription", "audio": {"input": sound}}
        return {
            **head, "type": "realtime", "model": self.model, "output_modalities": ["text"],
            "instructions": self.instructions, "tools": self.wire_tools, "tool_choice": self.wire_choice,
            "max_output_tokens": "inf" if self.max_tokens is None else self.max_tokens,
            "truncation": "auto", "tracing": None, "prompt": None, "include": None,
            "audio": {"input": sound},
        }  # fmt: skip

    @property
    def answers(self) -> bool:
        """False for a session that transcribes only."""
        return self.kind == "realtime"


def _check_modalities(body: fields.Body) -> None:
    field = fields.many("output_modalities", fields.to_text, {"type": "string"}, 8)
    if any(name != "text" for name in body.get(field) or ()):
        place = body.at("output_modalities")
        raise Unsupported(f'{place} must be ["text"]: answers are not spoken', hint='send ["text"]', field=place)


def _max_tokens(body: fields.Body, before: int | None) -> int | None:
    value = body.raw("max_output_tokens")
    if value is None or value == "inf":
        return None if value == "inf" else before
    return fields.to_integer(value, body.at("max_output_tokens"), 1, MOST_TOKEN)


def _transcript(body: fields.Body | None, before: TranscriptSettings | None) -> TranscriptSettings | None:
    if body is None:
        return None
    model = body.get(fields.MODEL) or (before.model if before else "")
    if not model:
        raise Invalid(f"{body.at('model')} is required", hint="name a model of the task transcription",
                      field=body.at("model"))  # fmt: skip
    return TranscriptSettings(model=model, language=body.get(_LANGUAGE), prompt=body.get(_PROMPT))
