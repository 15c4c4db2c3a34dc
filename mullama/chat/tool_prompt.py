"""Describes tools in the prompt of models whose chat template has no place for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import assert_never

from mullama.chat.syntax import (
    BraceCalls,
    CallSyntax,
    ChannelCalls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)
from mullama.chat.template.shape import arguments_text, plain_tools
from mullama.chat.types import Message, TextPart, Tool, text_message
from mullama.struct import replace


def with_tools_described(messages: Sequence[Message], tools: Sequence[Tool], syntax: CallSyntax) -> tuple[Message, ...]:
    """Return the conversation with the tools and the call syntax at the end of its system message."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in plain_tools(tools))
    text = f"You may call these functions:\n{listed}\nTo call a function, write:\n{example(syntax)}"
    if messages and messages[0].role == "system":
        first = text_message("system", f"{messages[0].text}\n\n{text}")
        return (first, *messages[1:])
    return (text_message("system", text), *messages)


def with_calls_written(message: Message, syntax: CallSyntax) -> Message:
    """Return the message with its calls in its text, in the syntax of the model, for templates that omit calls."""
    if not message.tool_calls:
        return message
    calls = [example(syntax, call.name, arguments_text(call)) for call in message.tool_calls]
    text = "\n".join((message.text, *calls) if message.text else calls)
    return replace(message, content=(TextPart(text=text),), tool_calls=())


def example(syntax: CallSyntax, name: str = "<function-name>", arguments: str = "<arguments-json-object>") -> str:
    """Return a sample call, with words in angle brackets as placeholders."""
    match syntax:
        case JsonCalls(name_is_key=True):
            body = f'{{"{name}": {arguments}}}'
        case JsonCalls():
            body = f'{{"{syntax.name_key}": "{name}", "{syntax.arguments_key}": {arguments}}}'
        case NamedCalls():
            one = f"{syntax.begin}{name}{':0' if syntax.ordinal else ''}{syntax.middle}{arguments}{syntax.end}"
            return f"{syntax.open}{one}{syntax.close}"
        case TaggedCalls() | BraceCalls() | PythonCalls() if not name.startswith("<"):
            return f'{{"name": "{name}", "arguments": {arguments}}}'
        case TaggedCalls():
            value = f"{syntax.key}<name>{syntax.keyed}<value>{syntax.valued}"
            return f"{syntax.open}{syntax.begin}{name}{syntax.named}{value}{syntax.end}{syntax.close}"
        case BraceCalls():
            return f"{syntax.open}call:{name}{{<name>:<value>}}{syntax.close}"
        case PythonCalls():
            return f"{syntax.open}[{name}(<name>=<value>)]{syntax.close}"
        case ChannelCalls():
            return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"
        case _:
            assert_never(syntax)
    body = f"[{body}]" if syntax.one_list else body
    return f"{syntax.open}{syntax.gap}{body}{syntax.gap}{syntax.close}"
