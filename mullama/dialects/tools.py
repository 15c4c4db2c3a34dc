"""Tools, tool choice and call arguments, in the forms that all dialects share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mullama.chat.reader.json_text import complete_members, object_of
from mullama.chat.tool_servers import may_be_of_server
from mullama.chat.types import Message, Tool, ToolCall, ToolChoice
from mullama.dialects import fields, schema
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import replace

MOST_TOOLS = 256
MOST_MESSAGES = 4096

NAME = fields.text("name", 256)
DESCRIPTION = fields.text("description")
PARAMETERS = fields.record("parameters")
STRICT = fields.flag("strict")

FUNCTION_SCHEMA = schema.record(
    "name",
    name=schema.STRING,
    description=schema.nullable(schema.STRING),
    parameters=schema.nullable(schema.RECORD),
)
TOOL_SCHEMA = schema.record("type", type=schema.STRING, function=FUNCTION_SCHEMA)
CALL_SCHEMA = schema.record(
    "function",
    id=schema.STRING,
    function=schema.record("name", name=schema.STRING, arguments=schema.either(schema.STRING, schema.RECORD)),
)


def compact(value: JSONValue) -> str:
    """Return JSON without spaces, in the order of the value, with unescaped characters."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def arguments_of(value: JSONValue) -> Mapping[str, JSONValue] | str:
    """Return the arguments of an earlier call: an object, or its JSON text; null has none.

    Anything else is returned as text: a model or another server wrote it, and the client cannot change it.
    """
    if value is None or isinstance(value, Mapping):
        return value or {}
    if not isinstance(value, str):
        return compact(value)
    if not value.strip():
        return {}
    found = object_of(value)
    return value if found is None else found


def arguments_text(call: ToolCall) -> str:
    """Return the arguments as JSON text, or as the text that the model wrote."""
    return call.arguments if isinstance(call.arguments, str) else compact(call.arguments)


def arguments_object(call: ToolCall) -> dict[str, JSONValue]:
    """Return the arguments as an object: of a call that was cut, the members that are complete."""
    return dict(complete_members(call.arguments) if isinstance(call.arguments, str) else call.arguments)


def function_tool(body: fields.Body) -> Tool:
    """Return the tool of `{name, description, parameters, strict}`; its schema is not changed."""
    return Tool(
        name=body.need(NAME),
        description=body.get(DESCRIPTION) or "",
        parameters=body.get(PARAMETERS),
        strict=body.get(STRICT) or False,
    )


def function_call(value: JSONValue, path: str) -> ToolCall:
    """Return the call of `{id, function: {name, arguments}}`; `linked` adds a missing id."""
    body = fields.Body(value, path)
    function = body.child("function")
    if function is None:
        raise Invalid(f"{path}.function is required", field=f"{path}.function")
    return ToolCall(
        id=body.get(fields.text("id", 256)) or "",
        name=function.need(NAME),
        arguments=arguments_of(function.raw("arguments")),
    )


_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice(mode="auto"),
    "none": ToolChoice(mode="none"),
    "required": ToolChoice(mode="required"),
}


def _choice(value: JSONValue, path: str) -> ToolChoice:
    """Return the choice of OpenAI's forms: a word, a function, or a list of allowed tools."""
    if isinstance(value, str):
        if value not in _MODES:
            raise fields.unfit(path, f"one of {', '.join(_MODES)} or an object, not {value[:40]!r}")
        return _MODES[value]
    body = fields.Body(value, path)
    kind = fields.to_text(body.raw("type"), body.at("type"))
    match kind:
        case "function" | "custom":
            return ToolChoice(mode="required", names=(_named(body),))
        case "allowed_tools":
            return _allowed(body.child("allowed_tools") or body)
        case "auto" | "none" | "required":
            return _MODES[kind]
        case _:
            raise fields.unfit(body.at("type"), f"function or allowed_tools, not {kind[:40]!r}")


def _named(body: fields.Body) -> str:
    return (body.child("function") or body).need(NAME)


def _allowed(body: fields.Body) -> ToolChoice:
    mode = fields.to_text(body.raw("mode") or "auto", body.at("mode"))
    if mode not in ("auto", "required"):
        raise fields.unfit(body.at("mode"), "auto or required")
    tools = body.raw("tools")
    if not isinstance(tools, list | tuple) or not tools:
        raise fields.unfit(body.at("tools"), "a list of at least one tool")
    names = tuple(_named(fields.Body(tool, f"{body.at('tools')}[{i}]")) for i, tool in enumerate(tools))
    return replace(_MODES[mode], names=names)


TOOL_CHOICE: fields.Field[ToolChoice] = fields.Field(
    "tool_choice",
    _choice,
    schema.either(schema.one_of(*_MODES), schema.record("type", type=schema.STRING)),
)


def checked_choice(choice: ToolChoice | None, tools: tuple[Tool, ...], path: str) -> ToolChoice:
    """Return the choice, or raise `Invalid` if it names an unknown tool.

    A call may be required without tools, and of a tool that has a name as those of servers: the manifest may give the
    model some, and the constraint refuses it if not.
    """
    if choice is None:
        return ToolChoice()
    known = {tool.name for tool in tools}
    for name in choice.names:
        if name not in known and not may_be_of_server(name):
            raise Invalid(f"{path} names {name!r}, which is not among the tools", field=path)
    return choice


def unique(tools: Iterable[Tool], path: str) -> tuple[Tool, ...]:
    """Return the tools, or raise `Invalid` for two tools of one name."""
    found: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in found:
            raise Invalid(f"{path} has two tools called {tool.name!r}", field=path)
        found[tool.name] = tool
    return tuple(found.values())


def linked(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the conversation with each tool result linked to its call by id and by name.

    Dialects link them by id, by name, or by order only; templates may need any of these.
    """
    pending: dict[str, str] = {}
    count = 0
    turns: list[Message] = []
    for message in messages:
        if message.tool_calls:
            calls: list[ToolCall] = []
            for call in message.tool_calls:
                calls.append(call if call.id else replace(call, id=f"call_{count}"))
                count += 1
            pending = {call.id: call.name for call in calls}
            turns.append(replace(message, tool_calls=tuple(calls)))
        elif message.role == "tool":
            turns.append(_linked_result(message, pending))
        else:
            turns.append(message)
    return tuple(turns)


def _linked_result(result: Message, pending: dict[str, str]) -> Message:
    """Return the result with the id and name of its call, and remove the call from `pending`."""
    id = result.tool_call_id
    if not id:
        named = (i for i, name in pending.items() if name == result.tool_name)
        id = next(named, None) or next(iter(pending), None)
    name = pending.pop(id, None) if id else None
    return replace(result, tool_call_id=id, tool_name=result.tool_name or name)
