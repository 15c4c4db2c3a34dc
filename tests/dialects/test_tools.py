"""Tools: schemas stay as they were, choices must be possible, calls and results are turns together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mullama.chat.types import Message, Tool, ToolCall, ToolChoice, text_message
from mullama.dialects.fields import Body
from mullama.dialects.tools import (
    TOOL_CHOICE,
    arguments_of,
    checked_choice,
    compact,
    function_tool,
    linked,
    unique,
)
from mullama.errors import Invalid
from tests.dialects.wire import WEATHER

TOOLS = (Tool(name="weather"), Tool(name="clock"))


def test_a_schema_is_kept_word_for_word_and_in_order() -> None:
    tool = function_tool(Body({"name": "weather", "parameters": WEATHER}))

    assert json.dumps(tool.parameters) == json.dumps(WEATHER)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [({"a": 1}, {"a": 1}), ('{"a": 1}', {"a": 1}), ("", {}), ("  ", {}), (None, {})],
)
def test_arguments_come_as_an_object_or_as_its_text(value: Any, arguments: Any) -> None:
    assert arguments_of(value, "arguments") == arguments


@pytest.mark.parametrize("value", ["{", "[1]", "NaN", '{"a": NaN}', 5, [1], "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_arguments_that_are_no_object_are_refused_by_name(value: Any) -> None:
    with pytest.raises(Invalid, match="arguments"):
        arguments_of(value, "arguments")


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        ({"type": "function", "function": {"name": "clock"}}, ToolChoice(mode="required", names=("clock",))),
        ({"type": "function", "name": "clock"}, ToolChoice(mode="required", names=("clock",))),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]},
            ToolChoice(mode="required", names=("clock",)),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"tools": [{"type": "function", "function": {"name": "clock"}}]},
            },
            ToolChoice(names=("clock",)),
        ),
    ],
)
def test_a_choice_is_understood_in_all_its_forms(value: Any, choice: ToolChoice) -> None:
    assert checked_choice(Body({"tool_choice": value}).get(TOOL_CHOICE), TOOLS, "tool_choice") == choice


@pytest.mark.parametrize(
    "value",
    [
        "any",
        5,
        {},
        {"type": "function"},
        {"type": "web_search"},
        {"type": "function", "name": "unknown"},
        {"type": "allowed_tools", "tools": []},
        {"type": "allowed_tools", "mode": "none", "tools": [{"name": "clock"}]},
    ],
)
def test_a_choice_that_cannot_be_is_refused_and_never_becomes_auto(value: Any) -> None:
    with pytest.raises(Invalid, match="tool_choice"):
        checked_choice(Body({"tool_choice": value}).get(TOOL_CHOICE), TOOLS, "tool_choice")


def test_a_call_cannot_be_required_where_there_is_no_tool() -> None:
    with pytest.raises(Invalid, match="there are no tools"):
        checked_choice(ToolChoice(mode="required"), (), "tool_choice")


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="two tools called 'clock'"):
        unique((*TOOLS, Tool(name="clock")), "tools")


def test_results_find_their_calls_by_id_by_name_and_by_order() -> None:
    calls = tuple(ToolCall(id=i, name=n, arguments={}) for i, n in (("x", "weather"), ("", "clock"), ("", "add")))
    messages = (
        text_message("user", "go"),
        Message(role="assistant", tool_calls=calls),
        Message(role="tool", tool_name="clock"),
        Message(role="tool", tool_call_id="x"),
        Message(role="tool"),
        Message(role="tool", tool_call_id="elsewhere"),
    )

    turns = linked(messages)

    assert [call.id for call in turns[1].tool_calls] == ["x", "call_1", "call_2"]
    assert [(m.tool_call_id, m.tool_name) for m in turns[2:]] == [
        ("call_1", "clock"),
        ("x", "weather"),
        ("call_2", "add"),
        ("elsewhere", None),
    ]


def test_compact_json_keeps_characters_and_order() -> None:
    assert compact({"b": "ü\u2028", "a": [1, None]}) == '{"b":"ü\u2028","a":[1,null]}'
