"""Prepares the contents of a conversation: texts of control tokens in them are broken, reasoning is separated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mullama.chat.template.base import ChatInput, Thinking
from mullama.chat.token_texts import TokenTexts, choose_joint
from mullama.chat.types import Message, TextPart, Tool, ToolCall
from mullama.names import JSONValue
from mullama.struct import replace


def protected(chat: ChatInput, texts: TokenTexts, marks: Thinking | None, source: str) -> tuple[ChatInput, str]:
    """Return the conversation with each of `texts` broken in its contents, and the joint, "" where none is.

    marks: the marks of the reasoning; a block of reasoning before the text of an assistant's turn becomes the
    reasoning of the turn, because templates search the whole text for the marks. source: the text of the template.
    """
    last = len(chat.messages) - 1
    continued = chat.continue_final and last >= 0 and chat.messages[last].role == "assistant"
    messages = [
        message if continued and index == last else _reasoning_apart(message, marks)
        for index, message in enumerate(chat.messages)
    ]
    chat = replace(chat, messages=tuple(messages))
    contents = list(contents_of(chat))
    if not any(map(texts.occurs_in, contents)):
        return chat, ""
    joint = choose_joint([*contents, source])

    def broken(text: str) -> str:
        return texts.broken(text, joint)

    made = _mapped(chat, broken)
    if continued and marks is not None:
        opened = _with_marks(chat.messages[last], marks, broken)
        made = replace(made, messages=(*made.messages[:-1], opened))
    return made, joint


def _reasoning_apart(message: Message, marks: Thinking | None) -> Message:
    """Return the turn with the reasoning at the beginning of its text in its own field."""
    if marks is None or message.role != "assistant" or message.thinking:
        return message
    begin, end = marks.open.strip(), marks.close.strip()
    text = message.text
    if not text.lstrip().startswith(begin) or end not in text:
        return message
    thinking, _, rest = text.lstrip()[len(begin) :].partition(end)
    content = (TextPart(text=rest.lstrip("\n")),) if rest.lstrip("\n") else ()
    return replace(message, content=content, thinking=thinking.strip() or None)


def _with_marks(message: Message, marks: Thinking, broken: Callable[[str], str]) -> Message:
    """Return an answer to continue with the marks of its leading reasoning whole: they are not part of a text."""
    begin, end = marks.open.strip(), marks.close.strip()
    text = message.text
    lead = text[: len(text) - len(text.lstrip())]
    if not text.lstrip().startswith(begin):
        return _mapped_message(message, broken)
    thinking, closed, rest = text.lstrip()[len(begin) :].partition(end)
    whole = lead + begin + broken(thinking) + closed + broken(rest)
    return replace(_mapped_message(message, broken), content=(TextPart(text=whole),))


def contents_of(chat: ChatInput) -> Iterator[str]:
    """Yield every text that a client or a manifest contributes."""
    found: list[str] = []

    def see(text: str) -> str:
        found.append(text)
        return text

    _mapped(chat, see)
    yield from found


def _mapped(chat: ChatInput, change: Callable[[str], str]) -> ChatInput:
    return replace(
        chat,
        messages=tuple(_mapped_message(message, change) for message in chat.messages),
        tools=tuple(_mapped_tool(tool, change) for tool in chat.tools),
        arguments=tuple((name, _mapped_value(value, change)) for name, value in chat.arguments),
        suffix=change(chat.suffix),
    )


def _mapped_message(message: Message, change: Callable[[str], str]) -> Message:
    # The parts are joined first: a text may begin in one part and end in the next.
    return replace(
        message,
        content=(TextPart(text=change(message.text)),) if message.content else (),
        thinking=_optional(message.thinking, change),
        tool_calls=tuple(_mapped_call(call, change) for call in message.tool_calls),
        tool_call_id=_optional(message.tool_call_id, change),
        tool_name=_optional(message.tool_name, change),
        name=_optional(message.name, change),
    )


def _optional(text: str | None, change: Callable[[str], str]) -> str | None:
    return None if text is None else change(text)


def _mapped_call(call: ToolCall, change: Callable[[str], str]) -> ToolCall:
    arguments = _mapped_value(call.arguments, change)
    return replace(call, id=change(call.id), name=change(call.name), arguments=arguments)


def _mapped_tool(tool: Tool, change: Callable[[str], str]) -> Tool:
    parameters = None if tool.parameters is None else _mapped_value(tool.parameters, change)
    return replace(
        tool,
        name=change(tool.name),
        description=change(tool.description),
        parameters=parameters,
    )


def _mapped_value(value: JSONValue, change: Callable[[str], str]) -> JSONValue:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped_value(item, change) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_mapped_value(item, change) for item in value]
    return value
