"""Converts messages of OpenAI's chat to turns of the conversation vocabulary."""

from __future__ import annotations

from mullama.chat.types import Message, Part, Role, TextPart, ToolCall
from mullama.dialects import fields, schema
from mullama.dialects.media import file_part, image_part, sound_part
from mullama.dialects.tools import (
    CALL_SCHEMA,
    MOST_MESSAGES,
    MOST_TOOLS,
    NAME,
    arguments_of,
    function_call,
)
from mullama.names import JSONValue

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT = fields.text("text")


def to_part(value: JSONValue, path: str) -> Part:
    """Return one content part: text, a refusal, an image or a sound."""
    body = fields.Body(value, path)
    kind = body.raw("type")
    match kind:
        case "text" | "input_text" | "output_text":
            return TextPart(text=body.need(_TEXT))
        case "refusal":
            return TextPart(text=body.need(fields.text("refusal")))
        case "image_url" | "input_image":
            return image_part(body)
        case "input_audio":
            return sound_part(body)
        case "file" | "input_file":
            return file_part(body)
        case _:
            raise fields.unfit(body.at("type"), f"text, image_url, input_audio or file, not {str(kind)[:40]!r}")


def to_content(value: JSONValue, path: str) -> tuple[Part, ...]:
    """Return the parts of a string or a list; an empty string has none."""
    if isinstance(value, str):
        return (TextPart(text=value),) if value else ()
    if not isinstance(value, list | tuple):
        raise fields.unfit(path, "a string or a list of parts")
    return tuple(to_part(part, f"{path}[{i}]") for i, part in enumerate(value))


CONTENT: fields.Field[tuple[Part, ...]] = fields.Field(
    "content", to_content, schema.either(schema.STRING, schema.listed(schema.RECORD))
)


def to_role(body: fields.Body) -> Role:
    name = fields.to_text(body.raw("role"), body.at("role"))
    if name not in ROLES:
        raise fields.unfit(body.at("role"), f"one of {', '.join(ROLES)}, not {name[:40]!r}")
    return ROLES[name]


def _call(value: JSONValue, path: str) -> ToolCall:
    body = fields.Body(value, path)
    custom = body.child("custom")
    if custom is None:
        return function_call(value, path)
    return ToolCall(
        id=body.get(fields.text("id", 256)) or "",
        name=custom.need(NAME),
        arguments={"input": custom.get(fields.text("input")) or ""},
    )


_CALLS = fields.many("tool_calls", _call, CALL_SCHEMA, MOST_TOOLS)


def _calls(body: fields.Body) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant's turn; the older `function_call` is one call without an id."""
    calls = body.get(_CALLS)
    old = body.child("function_call")
    if calls or old is None:
        return calls or ()
    return (ToolCall(id="", name=old.need(NAME), arguments=arguments_of(old.raw("arguments"))),)


def to_message(value: JSONValue, path: str) -> Message:
    """Return one turn. Clients send reasoning back under any of the names that servers use."""
    body = fields.Body(value, path)
    role = to_role(body)
    thinking = body.first(fields.text("reasoning_content"), fields.text("reasoning"), fields.text("thinking"))
    name = body.get(fields.text("name", 256))
    return Message(
        role=role,
        content=body.get(CONTENT) or (),
        thinking=(thinking or None) if role == "assistant" else None,
        tool_calls=_calls(body) if role == "assistant" else (),
        tool_call_id=body.get(fields.text("tool_call_id", 256)) if role == "tool" else None,
        tool_name=name if role == "tool" else None,
        name=name if role != "tool" else None,
    )


MESSAGE_SCHEMA = schema.record(
    "role",
    role=schema.one_of(*ROLES),
    content=schema.nullable(CONTENT.schema),
    name=schema.nullable(schema.STRING),
    tool_calls=schema.nullable(schema.listed(CALL_SCHEMA, most=MOST_TOOLS)),
    tool_call_id=schema.nullable(schema.STRING),
    reasoning_content=schema.nullable(schema.STRING),
    reasoning=schema.nullable(schema.STRING),
)
MESSAGES = fields.many("messages", to_message, MESSAGE_SCHEMA, MOST_MESSAGES)
