"""Converts input items of the Responses API to turns of the conversation vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mullama.chat.types import Message, Part, TextPart, ToolCall, text_message
from mullama.dialects import fields, schema
from mullama.dialects.openai import web_search
from mullama.dialects.openai.messages import CONTENT, to_role
from mullama.dialects.openai.responses import mcp
from mullama.dialects.openai.responses.tools import flat
from mullama.dialects.reply_values import decode_text
from mullama.dialects.tools import MOST_MESSAGES, NAME, arguments_of, linked
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct, field

Item = mcp.Item

_CALL_ID = fields.text("call_id", 256)
_HIDDEN = fields.text("encrypted_content")
_SUMMARY = "Summary of the conversation up to here:"
_NAMESPACE = fields.text("namespace", 256)
_ITEM_ID = re.compile(r"(?:msg|rs|fc|ctc|mcp|mcpl|mcpr|ws)_([0-9a-f]{8,64})_[0-9a-f]{1,8}")

# Items of tools that ran on another server. The conversation continues without them.
_SERVER_SIDE = frozenset(
    {
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "code_interpreter_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "configuration_update",
        "compaction_trigger",
    }
)

ITEMS = fields.many("input", fields.to_record, schema.RECORD, MOST_MESSAGES)
INPUT_SCHEMA = schema.either(schema.STRING, ITEMS.schema)


def items_of(body: fields.Body) -> tuple[Item, ...]:
    """Return the input as items; a string is a user's message."""
    value = body.raw("input")
    if isinstance(value, str):
        part: JSONValue = {"type": "input_text", "text": value}
        return ({"type": "message", "role": "user", "content": [part]},) if value else ()
    return body.get(ITEMS) or ()


def referenced(items: Iterable[Item]) -> tuple[str, ...]:
    """Return the ids of the stored responses that item references name."""
    needs: dict[str, None] = {}
    for i, item in enumerate(items):
        if item.get("type") != "item_reference":
            continue
        id = fields.Body(item, f"input[{i}]").need(fields.text("id", 256))
        match = _ITEM_ID.fullmatch(id)
        if match is None:
            raise Invalid(
                f"input[{i}].id: there is no item {id[:80]!r}",
                hint="send the item itself",
                field=f"input[{i}].id",
            )
        needs[f"resp_{match[1]}"] = None
    return tuple(needs)


_PREFIXES = {
    "function_call": "fc", "reasoning": "rs", "custom_tool_call": "ctc", "mcp_call": "mcp", "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr", "mcp_approval_response": "mcpa",
}  # fmt: skip


def full_item(item: Item, index: int, response: str) -> dict[str, JSONValue]:
    """Return an input item with an id, in its full form. response: the id of its response without the prefix."""
    kind = item.get("type") or "message"
    prefix = _PREFIXES.get(str(kind), "msg")
    full: dict[str, JSONValue] = {"id": f"{prefix}_{response}_in{index:x}", "type": kind, "status": "completed"}
    complete = {**full, **item}
    content = complete.get("content")
    if kind == "message" and isinstance(content, str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        complete["content"] = [{"type": part, "text": content}]
    return complete


class Turns(Struct):
    """Collects turns, and the items of the assistant's current turn."""

    done: list[Message] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    parts: tuple[Part, ...] = ()
    calls: list[ToolCall] = field(default_factory=list)

    def close(self) -> None:
        if self.parts or self.calls or self.thinking:
            self.done.append(
                Message(
                    role="assistant",
                    content=self.parts,
                    thinking="\n".join(self.thinking) or None,
                    tool_calls=tuple(self.calls),
                )
            )
        self.thinking, self.parts, self.calls = [], (), []

    def think(self, thinking: str) -> None:
        if self.parts or self.calls:
            self.close()
        if thinking:
            self.thinking.append(thinking)

    def speak(self, parts: tuple[Part, ...]) -> None:
        if self.parts or self.calls:
            self.close()
        self.parts = parts

    def add(self, message: Message) -> None:
        self.close()
        self.done.append(message)

    def run(self, call: ToolCall, result: str | None) -> None:
        """Add a call that the server makes, and its result; None for one that it makes now."""
        self.calls.append(call)
        content = (TextPart(text=result),) if result is not None else ()
        self.add(Message(role="tool", content=content, tool_call_id=call.id, tool_name=call.name))


def conversation(items: Iterable[Item], instructions: str | None) -> tuple[Message, ...]:
    """Return the turns of the items, after the instructions. References must be resolved before."""
    turns = Turns()
    if instructions:
        turns.add(text_message("system", instructions))
    items = tuple(items)
    asked = mcp.read_items(items)
    for i, item in enumerate(items):
        _read(fields.Body(item, f"input[{i}]"), turns, asked)
    turns.close()
    return linked(turns.done)


def _read(item: fields.Body, turns: Turns, asked: mcp.McpItems) -> None:
    kind = item.raw("type")
    match kind:
        case None | "message":
            _message(item, turns)
        case "function_call" | "custom_tool_call":
            turns.calls.append(_call(item))
        case "function_call_output" | "custom_tool_call_output":
            turns.add(_result(item))
        case "reasoning":
            turns.think(_thinking(item))
        case "compaction":
            if summary := decode_text(item.get(_HIDDEN) or ""):
                turns.add(text_message("assistant", f"{_SUMMARY}\n{summary}"))
        case "mcp_call":
            turns.run(mcp.call_of(item), mcp.result_of(item))
        case "mcp_approval_request":
            call = mcp.call_of(item)
            if call.id not in asked.made:
                turns.run(call, mcp.unmade(call.id, asked))
        case "web_search_call":
            if (result := web_search.result_of(item)) is not None:
                turns.run(web_search.call_of(item), result)
        case "mcp_approval_response" | "mcp_list_tools":
            pass
        case str() if kind in _SERVER_SIDE:
            pass
        case _:
            raise fields.unfit(item.at("type"), f"a known type of item, not {str(kind)[:40]!r}")


def _message(item: fields.Body, turns: Turns) -> None:
    role = to_role(item)
    content = item.get(CONTENT) or ()
    if role == "assistant":
        turns.speak(content)
    else:
        turns.add(Message(role=role, content=content))


def _call(item: fields.Body) -> ToolCall:
    name = flat(item.get(_NAMESPACE), item.need(NAME))
    if item.raw("type") == "custom_tool_call":
        arguments: Item | str = {"input": item.get(fields.text("input")) or ""}
    else:
        arguments = arguments_of(item.raw("arguments"))
    return ToolCall(id=item.need(_CALL_ID), name=name, arguments=arguments)


def _result(item: fields.Body) -> Message:
    content = item.get(CONTENT.named("output"))
    return Message(role="tool", content=content or (), tool_call_id=item.need(_CALL_ID))


def _texts(item: fields.Body, name: str) -> str:
    parts = item.get(fields.many(name, fields.to_record, schema.RECORD, 1024)) or ()
    path = item.at(name)
    return "\n".join(fields.Body(p, f"{path}[{i}]").need(fields.text("text")) for i, p in enumerate(parts))


def _thinking(item: fields.Body) -> str:
    """Return the reasoning of an item from the most complete of its forms."""
    hidden = item.get(_HIDDEN)
    return _texts(item, "content") or (decode_text(hidden or "") or "") or _texts(item, "summary")
