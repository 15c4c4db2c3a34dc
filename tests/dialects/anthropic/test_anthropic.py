"""Anthropic's own corners: blocks, choices, pages of models."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.inventory import Inventory, ModelCard
from mullama.chat.types import Finished, StopReason, TextDelta, ThinkingDelta
from mullama.dialects.base import WireRequest
from mullama.errors import Invalid, Unsupported
from tests.dialects.wire import HELLO, data, decode, encode, endpoint, reply, route, run_of

PATH = "/v1/messages"
ASK = {**HELLO, "max_tokens": 9}
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def message(content: Any, role: str = "user") -> Any:
    return decode(PATH, {"model": "m", "max_tokens": 9, "messages": [{"role": role, "content": content}]}).messages


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "a"),
        ({"type": "document", "source": {"type": "text", "data": "b"}}, "b"),
        ({"type": "document", "title": "T", "source": {"type": "content", "content": "c"}}, "T\nc"),
        (
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "d"}]},
            "t (s)\nd",
        ),
        ({"type": "web_search_tool_result", "content": [{"title": "t", "url": "u"}]}, "t (u)"),
        ({"type": "web_search_tool_result", "content": {"type": "error"}}, ""),
        ({"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}, ""),
        ({"type": "redacted_thinking", "data": "x"}, ""),
    ],
)
def test_blocks_that_say_something_are_read(block: Any, text: str) -> None:
    assert message([block])[0].text == text


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "hologram"}, r"messages\[0\]\.content\[0\]\.type"),
        ({"type": "text"}, r"content\[0\]\.text is required"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "image from 'file'"),
        ({"type": "image"}, "source is required"),
        ({"type": "document", "source": {"type": "base64", "data": "x"}}, "document from 'base64'"),
        ({"type": "tool_result", "content": "x"}, "tool_use_id is required"),
        ({"type": "tool_use", "name": "f", "input": {}}, r"content\[0\]\.id is required"),
        ({"type": "thinking"}, "thinking is required"),
        ("text", r"content\[0\] must be a JSON object"),
    ],
)
def test_blocks_that_cannot_be_are_refused_by_name(block: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        message([block])


def test_images_come_as_base64_or_by_address() -> None:
    data_block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    url_block = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}

    parts = message([data_block, url_block])[0].content

    assert parts[0].data == b"\0\0\0"
    assert parts[1].url == "https://example.org/a.png"


def test_an_image_in_a_result_stays_with_the_result() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}, image]}

    turns = message([result])

    assert [m.role for m in turns] == ["tool"]
    assert turns[0].content[1].data == b"\0\0\0"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages is required"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"temperature": 101}, "temperature"),
        ({"tool_choice": {"type": "some"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool", "name": "bash"}, "tools": [TOOL]}, "not among the tools"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"system": 5}, "system"),
    ],
)
def test_what_is_wrong_is_refused_by_name(more: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words.replace(".", r"\.")):
        decode(PATH, {**ASK, **more})


@pytest.mark.parametrize(
    ("choice", "mode", "parallel"),
    [
        (None, "auto", True),
        ({"type": "auto"}, "auto", True),
        ({"type": "none"}, "none", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "weather"}, "required", True),
    ],
)
def test_choices_are_all_understood(choice: Any, mode: str, parallel: bool) -> None:
    operation = decode(PATH, {**ASK, "tools": [TOOL], "tool_choice": choice})

    assert (operation.tool_choice.mode, operation.parallel_tool_calls) == (mode, parallel)


def test_the_schema_of_an_agents_tools_never_fails_to_decode() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"path": {"type": "string", "pattern": "^(?!/).*$"}, "n": {"maximum": 9223372036854775807}},
        "additionalProperties": False,
    }

    assert decode(PATH, {**ASK, "tools": [{"name": "Read", "input_schema": schema}]}).tools[0].parameters == schema


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (Finished(reason=StopReason.STOP), "end_turn", None),
        (Finished(reason=StopReason.STOP_SEQUENCE, stop_sequence="x"), "stop_sequence", "x"),
        (Finished(reason=StopReason.LENGTH), "max_tokens", None),
        (Finished(reason=StopReason.TOOL_CALLS), "tool_use", None),
        (Finished(reason=StopReason.CANCELLED), "max_tokens", None),
    ],
)
def test_the_reason_and_the_sequence_are_told_whole_and_streamed(
    end: Finished, reason: str, sequence: str | None
) -> None:
    events = run_of(TextDelta(text="a"), end=end)

    whole = reply(PATH, ASK, events)
    delta = data(PATH, ASK, events)[-2]["delta"]

    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert delta == {"stop_reason": reason, "stop_sequence": sequence}


def test_thinking_is_signed_and_the_signature_comes_last() -> None:
    events = run_of(ThinkingDelta(text="hm"), TextDelta(text="a"))
    kinds = [
        e["delta"]["type"] for e in data(PATH, ASK, events) if e["type"] == "content_block_delta" and e["index"] == 0
    ]

    assert kinds == ["thinking_delta", "signature_delta"]
    assert reply(PATH, ASK, events)["content"][0]["signature"]


def page(**query: str) -> Any:
    cards = tuple(ModelCard(name=n, modified=1.0, context_size=2048) for n in "abcde")
    one = endpoint("/v1/models", "GET", "anthropic")
    return encode(one, one.decode(WireRequest(query=query)), Inventory(models=cards)).body


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "d"}, "e", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"limit": "2", "before_id": "b"}, "a", False),
    ],
)
def test_models_come_in_pages(query: dict[str, str], ids: str, more: bool) -> None:
    said = page(**query)

    assert ["".join(m["id"] for m in said["data"]), said["has_more"]] == [ids, more]
    assert (said["first_id"], said["last_id"]) == (ids[0], ids[-1])


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"limit": "-1"}, {"after_id": "x"}, {"limit": "²"}]
)
def test_a_page_that_cannot_be_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        page(**query)


def test_the_header_tells_whose_models_are_meant() -> None:
    ours = route("GET", "/v1/models", {"anthropic-version": "2023-06-01"})
    theirs = route("GET", "/v1/models", {})

    assert ours is not None
    assert theirs is not None
    assert (ours[0].name, theirs[0].name) == ("anthropic", "openai")


def test_a_document_that_cannot_be_read_says_what_to_send() -> None:
    with pytest.raises(Unsupported, match="send its text"):
        message([{"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}])
