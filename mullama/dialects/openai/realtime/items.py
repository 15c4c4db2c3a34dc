"""The items of a realtime conversation: messages, calls and their results, in wire form and as turns of a prompt."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Literal

from mullama.chat.media.wav import wav_file
from mullama.chat.types import MediaPart, Message, Part, TextPart, ToolCall
from mullama.dialects import fields
from mullama.dialects.media import decoded, image_part
from mullama.dialects.openai.realtime.sounds import SoundFormat
from mullama.dialects.openai.responses.items import Turns
from mullama.dialects.tools import NAME, arguments_of, linked
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct, replace

MOST_ITEMS = 4096
_ID = fields.text("id", 64)
_CALL_ID = fields.text("call_id", 256)
_TEXT = fields.text("text")
_TRANSCRIPT = fields.text("transcript")
_PARTS = fields.many("content", fields.to_record, {"type": "object"}, 64)
_ROLE = fields.choice("role", ("user", "assistant", "system"))
_OUTPUT_FIELD = fields.text("output")
_ARGUMENTS = fields.text("arguments")


class SoundPart(Struct, frozen=True, kw_only=True):
    """A sound that the client sent, and its transcript once there is one."""

    samples: bytes
    """16 bit, little-endian, one channel."""
    rate: int
    transcript: str | None = None

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / 2 / self.rate


class ImageInput(Struct, frozen=True, kw_only=True):
    """An image that the client sent."""

    part: MediaPart
    url: str
    """As the client sent it."""


ItemPart = TextPart | SoundPart | ImageInput


class ConversationItem(Struct, frozen=True, kw_only=True):
    """One item; which members it has depends on its kind."""

    id: str
    kind: Literal["message", "function_call", "function_call_output"] = "message"
    role: str = ""
    parts: tuple[ItemPart, ...] = ()
    call_id: str = ""
    name: str = ""
    text: str = ""
    """The arguments of a call, or its output."""
    status: str = "completed"

    @property
    def unheard(self) -> bool:
        """True if a sound has no transcript."""
        return any(isinstance(part, SoundPart) and part.transcript is None for part in self.parts)

    @property
    def size(self) -> int:
        """About how many bytes it keeps."""
        return 200 + len(self.text) + sum(map(_size, self.parts))

    def heard(self, transcript: str, *, keep: bool) -> ConversationItem:
        """Return the item with the transcript of its sound. keep: and with the sound, for a model that reads it."""
        parts = (
            replace(part, transcript=transcript, samples=part.samples if keep else b"")
            if isinstance(part, SoundPart) and part.transcript is None
            else part
            for part in self.parts
        )
        return replace(self, parts=tuple(parts))

    def shown(self, *, sounds: bool = False) -> dict[str, JSONValue]:
        """Return the wire form. sounds: with the samples in base64, which only a retrieval has."""
        head: dict[str, JSONValue] = {
            "id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status,
        }  # fmt: skip
        match self.kind:
            case "function_call":
                return {**head, "name": self.name, "call_id": self.call_id, "arguments": self.text}
            case "function_call_output":
                return {**head, "call_id": self.call_id, "output": self.text}
            case "message":
                text = "output_text" if self.role == "assistant" else "input_text"
                return {**head, "role": self.role, "content": [_shown(part, text, sounds) for part in self.parts]}


def _size(part: ItemPart) -> int:
    match part:
        case SoundPart():
            return len(part.samples) + len(part.transcript or "")
        case ImageInput():
            return len(part.url) + len(part.part.data or b"")
        case TextPart():
            return len(part.text)


def _shown(part: ItemPart, text: str, sounds: bool) -> dict[str, JSONValue]:
    match part:
        case SoundPart():
            sound = {"audio": base64.b64encode(part.samples).decode("ascii")} if sounds else {}
            return {"type": "input_audio", "transcript": part.transcript, **sound}
        case ImageInput():
            return {"type": "input_image", "image_url": part.url}
        case TextPart():
            return {"type": text, "text": part.text}


def read_item(value: JSONValue, path: str, id: str, format: SoundFormat) -> ConversationItem:
    """Return the item of a client. id: for an item without one. Raises `Invalid` with the path of the field."""
    body = fields.Body(value, path)
    own = body.get(_ID) or id
    match body.raw("type"):
        case "function_call":
            call = body.get(_CALL_ID) or f"call_{own}"
            arguments = body.need(_ARGUMENTS)
            return ConversationItem(id=own, kind="function_call", name=body.need(NAME), call_id=call, text=arguments)
        case "function_call_output":
            return ConversationItem(
                id=own, kind="function_call_output", call_id=body.need(_CALL_ID), text=body.need(_OUTPUT_FIELD)
            )
        case "message":
            role = body.need(_ROLE)
            parts = body.get(_PARTS) or ()
            read = (_part(fields.Body(p, f"{body.at('content')}[{i}]"), role, format) for i, p in enumerate(parts))
            return ConversationItem(id=own, role=role, parts=tuple(read))
        case kind:
            raise fields.unfit(
                body.at("type"), f"message, function_call or function_call_output, not {str(kind)[:40]!r}"
            )


def _part(body: fields.Body, role: str, format: SoundFormat) -> ItemPart:
    kind = body.raw("type")
    match kind, role:
        case ("input_text" | "text", "user" | "system") | ("output_text" | "text", "assistant"):
            return TextPart(text=body.need(_TEXT))
        case "input_audio", "user":
            place = body.at("audio")
            if not body.has("audio"):
                raise Invalid(f"{place} is required", field=place)
            samples = format.samples(decoded(fields.to_text(body.raw("audio"), place), place))
            return SoundPart(samples=samples, rate=format.rate, transcript=body.get(_TRANSCRIPT))
        case "input_image", "user":
            part = image_part(body)
            return ImageInput(part=part, url=str(body.raw("image_url")))
        case (("output_audio" | "audio"), "assistant"):
            return TextPart(text=body.need(_TRANSCRIPT))
        case _:
            known = {"user": "input_text, input_audio or input_image", "system": "input_text"}
            wanted = known.get(role, "output_text")
            raise fields.unfit(body.at("type"), f"{wanted} in a message of {role}, not {str(kind)[:40]!r}")


def turns_of(items: Iterable[ConversationItem], instructions: str, *, hears: bool) -> tuple[Message, ...]:
    """Return the items as turns. hears: sounds are sent as sounds, else by their transcripts."""
    turns = Turns()
    if instructions:
        turns.add(Message(role="system", content=(TextPart(text=instructions),)))
    for item in items:
        match item:
            case ConversationItem(kind="function_call"):
                turns.calls.append(ToolCall(id=item.call_id, name=item.name, arguments=arguments_of(item.text)))
            case ConversationItem(kind="function_call_output"):
                turns.add(Message(role="tool", content=_texts(item.text), tool_call_id=item.call_id))
            case ConversationItem(role="assistant"):
                turns.speak(_content(item.parts, hears))
            case _:
                role: Literal["system", "user"] = "system" if item.role == "system" else "user"
                if content := _content(item.parts, hears):
                    turns.add(Message(role=role, content=content))
    turns.close()
    return linked(turns.done)


def _texts(text: str) -> tuple[Part, ...]:
    return (TextPart(text=text),) if text else ()


def _content(parts: Sequence[ItemPart], hears: bool) -> tuple[Part, ...]:
    found: list[Part] = []
    for part in parts:
        match part:
            case SoundPart() if hears:
                found.append(MediaPart(kind="audio", data=wav_file(part.samples, rate=part.rate), place="item.content"))
            case SoundPart():
                found += _texts(part.transcript or "")
            case ImageInput():
                found.append(part.part)
            case TextPart():
                found += _texts(part.text)
    return tuple(found)
