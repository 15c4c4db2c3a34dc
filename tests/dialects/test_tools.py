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
from tests.dialects.wire import WEATHER, decode

TOOLS = (Tool(name="weather"), Tool(name="clock"))


def test_a_schema_is_kept_word_for_word_and_in_order() -> None:
    tool = function_tool(Body({"name": "weather", "parameters": WEATHER}))

    assert json.dumps(tool.parameters) == json.dumps(WEATHER)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [({"a": 1}, {"a": 1}), ('{"a": 1}', {"a": 1}), ("{}", {}), ("", {}), ("  ", {}), (None, {})],
)
def test_arguments_come_as_an_object_or_as_its_text(value: Any, arguments: Any) -> None:
    assert arguments_of(value) == arguments


BROKEN = [
    "{",
    "[1]",
    '"x"',
    "NaN",
    '{"a": NaN}',
    '{"a": 1e999}',
    "5",
    "x",
    "[" * 100_000,
    '{"a":' * 200 + "1" + "}" * 200,
    '{"a": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("value", BROKEN)
def test_arguments_that_are_no_object_pass_as_text(value: str) -> None:
    assert arguments_of(value) == value


@pytest.mark.parametrize(("value", "text"), [(5, "5"), ([1], "[1]"), (True, "true"), (0, "0"), ([], "[]")])
def test_arguments_of_another_type_pass_as_their_json_text(value: Any, text: str) -> None:
    assert arguments_of(value) == text


@pytest.mark.parametrize("value", [*BROKEN, 5, [1], None, "", {"a": 1}])
def test_a_history_with_odd_arguments_is_accepted_by_every_dialect(value: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": value}}
    said, answer = {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "bad"}
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": value}}
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": value}
    block = {"type": "tool_use", "id": "c1", "name": "f", "input": value}
    bodies = [
        ("/v1/chat/completions", {"messages": [said, answer]}),
        ("/v1/chat/completions", {"messages": [old]}),
        ("/api/chat", {"messages": [said, answer]}),
        ("/v1/responses", {"input": [item, {"type": "function_call_output", "call_id": "c1", "output": "bad"}]}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "assistant", "content": [block]}]}),
    ]
    for path, body in bodies:
        operation = decode(path, {"model": "m", **body})
        assert operation.messages[0].tool_calls[0].arguments == arguments_of(value), path


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


def test_a_required_call_may_be_one_of_a_tool_that_the_manifest_declares() -> None:
    required = ToolChoice(mode="required")
    assert checked_choice(required, (), "tool_choice") is required


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
