"""Changes a conversation to the shape that one template accepts, as its traits require, and no further."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby

from mullama.chat.template.base import Traits
from mullama.chat.types import Message, Role, TextPart, Tool, ToolCall, text_message
from mullama.names import JSONValue
from mullama.struct import replace

Plain = dict[str, object]


def shape(messages: Sequence[Message], traits: Traits) -> tuple[Message, ...]:
    """Return the conversation, changed only where this template would refuse it or lose something."""
    shaped = tuple(messages)
    if not traits.call:
        shaped = tuple(_calls_as_text(m) for m in shaped)
    if not traits.tool_role:
        shaped = tuple(_result_as_user(m) for m in shaped)
    if traits.single_call:
        shaped = _one_call_each(shaped)
    if traits.thinking_or_content:
        shaped = tuple(_one_of_thinking_and_content(m) for m in shaped)
    if not (traits.several_system and traits.system):
        shaped = _leading_systems_joined(shaped)
    if not (traits.late_system and traits.system):
        shaped = _late_systems_as_user(shaped)
    if not traits.system:
        shaped = _system_into_user(shaped)
    if traits.alternate:
        shaped = _neighbours_joined(shaped)
    return shaped


def plain_messages(messages: Sequence[Message], traits: Traits) -> list[Plain]:
    """Return the messages as the JSON values that templates read."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_plain_message(message, traits, names) for message in messages]


def plain_tools(tools: Sequence[Tool], *, described: bool = False) -> list[Plain]:
    """Return the tools in the function form, with the keys of the schema in the client's order.

    described: add a description to each argument without one, for templates that require it.
    """
    if described:
        tools = [replace(tool, parameters=_described(tool.parameters or {})) for tool in tools]
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": plain(tool.parameters or {"type": "object", "properties": {}}),
            },
        }
        for tool in tools
    ]


def _described(schema: Mapping[str, JSONValue]) -> Mapping[str, JSONValue]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return schema
    made = {
        name: {"description": "", "type": "string", **part} if isinstance(part, Mapping) else part
        for name, part in properties.items()
    }
    return {**schema, "properties": made}


def plain(value: JSONValue) -> object:
    """Return a JSON value of dicts and lists alone."""
    if value is None or isinstance(value, str | int | float):  # before the checks of abstract classes, which take long
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def _plain_message(message: Message, traits: Traits, names: Mapping[str, str]) -> Plain:
    text = message.text
    made: Plain = {
        "role": message.role,
        "content": [{"type": "text", "text": text}] if traits.typed_content else text,
    }
    if message.thinking:
        made |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.thinking)
    if message.tool_calls:
        made["tool_calls"] = [_plain_call(call, traits) for call in message.tool_calls]
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        made["tool_call_id"] = _short(call_id) if traits.short_ids else call_id
        made["name"] = message.tool_name or names.get(call_id, "")
    elif message.name:
        made["name"] = message.name
    return made


def arguments_of(call: ToolCall) -> Mapping[str, JSONValue]:
    """Return the arguments as an object, with text that is none as its only member."""
    return {"arguments": call.arguments} if isinstance(call.arguments, str) else call.arguments


def arguments_text(call: ToolCall) -> str:
    """Return the arguments as JSON text, or as the text that was written."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(plain(call.arguments), ensure_ascii=False)


def _plain_call(call: ToolCall, traits: Traits) -> Plain:
    arguments: object = plain(call.arguments)
    if isinstance(call.arguments, str):
        arguments = call.arguments if traits.string_arguments or traits.text_arguments else plain(arguments_of(call))
    elif traits.string_arguments:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": _short(call.id) if traits.short_ids else call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _short(call_id: str) -> str:
    """Return nine letters and digits, which some templates require; equal ids give equal results."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:9]


def _joined(first: Message, second: Message, role: Role | None = None) -> Message:
    """Join two messages to one, with a blank line between their texts."""
    gap = (TextPart(text="\n\n"),) if first.content and second.content else ()
    thoughts = [thought for thought in (first.thinking, second.thinking) if thought]
    return replace(
        first,
        role=role or first.role,
        content=first.content + gap + second.content,
        tool_calls=first.tool_calls + second.tool_calls,
        thinking="\n\n".join(thoughts) or None,
    )


def _leading_systems_joined(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    count = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    if count < 2:
        return messages
    text = "\n\n".join(m.text for m in messages[:count])
    return (text_message("system", text), *messages[count:])


def _late_systems_as_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Turn later system messages into user messages in place, because moving them would change cached prefixes."""
    return tuple(replace(m, role="user") if m.role == "system" and i > 0 else m for i, m in enumerate(messages))


def _system_into_user(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not messages or messages[0].role != "system":
        return messages
    if len(messages) > 1 and messages[1].role == "user":
        return (_joined(messages[0], messages[1], "user"), *messages[2:])
    return (replace(messages[0], role="user"), *messages[1:])


def _neighbours_joined(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Join consecutive user messages, and consecutive assistant messages, to one each."""
    made: list[Message] = []
    for message in messages:
        mergeable = message.role in ("user", "assistant") and made and made[-1].role == message.role
        if mergeable and not (made[-1].tool_calls and message.tool_calls):
            made[-1] = _joined(made[-1], message)
        else:
            made.append(message)
    return tuple(made)


def _one_call_each(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Split parallel calls: one call, its result, the next call, its result."""
    made: list[Message] = []
    pending: list[Message] = []
    for is_tool, run in groupby(messages, key=lambda m: m.role == "tool"):
        results = list(run)
        if is_tool and pending:
            made.extend(_interleaved(pending, results))
            pending = []
            continue
        made.extend(pending)
        pending = []
        for message in results:
            made.extend(pending)
            pending = []
            if len(message.tool_calls) > 1:
                first, *others = message.tool_calls
                pending = [replace(message, tool_calls=(first,))]
                pending += [Message(role="assistant", tool_calls=(call,)) for call in others]
            else:
                made.append(message)
    return (*made, *pending)


def _interleaved(calls: list[Message], results: list[Message]) -> list[Message]:
    by_id = {result.tool_call_id: result for result in results}
    made: list[Message] = []
    for index, call in enumerate(calls):
        result = by_id.pop(call.tool_calls[0].id, None)
        if result is None and index < len(results) and results[index].tool_call_id is None:
            result = results[index]
        made.extend((call,) if result is None else (call, result))
    return made + [result for result in results if result not in made]


def _one_of_thinking_and_content(message: Message) -> Message:
    """Move the text into the reasoning, for templates that refuse both in a message with calls."""
    if not (message.tool_calls and message.thinking and message.text):
        return message
    return replace(message, content=(), thinking=f"{message.thinking}\n\n{message.text}")


def _calls_as_text(message: Message) -> Message:
    if not message.tool_calls:
        return message
    calls = [
        f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {arguments_text(call)}}}'
        for call in message.tool_calls
    ]
    text = "\n".join([message.text, *calls] if message.text else calls)
    return replace(message, content=(TextPart(text=text),), tool_calls=())


def _result_as_user(message: Message) -> Message:
    if message.role != "tool":
        return message
    label = f"Result of {message.tool_name}:\n" if message.tool_name else "Result:\n"
    return text_message("user", label + message.text)
