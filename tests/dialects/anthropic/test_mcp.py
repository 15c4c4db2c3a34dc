"""Servers of tools in messages: `mcp_servers`, toolsets, and the blocks of their calls."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from pydantic import TypeAdapter

from mullama.chat import types
from mullama.errors import Invalid
from tests.dialects.wire import data, decode, reply, run_of

PATH = "/v1/messages"
DOCS: dict[str, Any] = {"type": "url", "name": "docs", "url": "https://mcp.example.org/mcp"}
ASK: dict[str, Any] = {"model": "tiny", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]}
NAMED: dict[str, Any] = {**ASK, "mcp_servers": [DOCS]}
BEGUN = types.ToolStarted(id="call_1", server="docs", name="read", arguments={"page": 1})
ENDED = types.ToolEnded(id="call_1", text="page 1")
EVENT: TypeAdapter[Any] = TypeAdapter(BetaRawMessageStreamEvent)
SAYS = types.TextDelta(text="It says 1.")


def servers(*tools: Any, **more: Any) -> Any:
    return decode(PATH, {**ASK, "mcp_servers": [{**DOCS, **more}], "tools": list(tools)}).tool_servers


def test_a_server_is_named_by_name_and_address() -> None:
    [server] = servers()
    assert (server.label, server.url, server.only, server.place) == ("docs", DOCS["url"], None, "mcp_servers[0]")
    assert decode(PATH, NAMED).shows_calls
    assert not decode(PATH, ASK).shows_calls
    assert decode(PATH, NAMED).warnings == ()


def test_a_configuration_chooses_the_tools() -> None:
    assert servers(tool_configuration={"enabled": False}) == ()
    assert servers(tool_configuration={"enabled": True, "allowed_tools": ["read"]})[0].only == ("read",)
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    assert servers({**toolset, "configs": {"write": {"enabled": False}}})[0].without == ("write",)
    few = {**toolset, "default_config": {"enabled": False}, "configs": {"read": {"enabled": True}, "list": {}}}
    assert servers(few)[0].only == ("read",)


def test_a_token_of_a_request_is_noted() -> None:
    assert servers(authorization_token="secret")[0].credentials == "authorization_token"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"mcp_servers": [{"type": "url", "name": "docs"}]}, r"mcp_servers\[0\]\.url is required"),
        ({"mcp_servers": [{"type": "url", "url": "https://x/"}]}, r"mcp_servers\[0\]\.name is required"),
        ({"mcp_servers": [{**DOCS, "type": "stdio"}]}, r"mcp_servers\[0\]\.type must be url"),
        ({"mcp_servers": [DOCS, DOCS]}, "two servers of one name"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "docs"}]}, "mcp_servers has no server 'docs'"),
    ],
)
def test_servers_that_cannot_be_are_refused_by_name(body: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode(PATH, {**ASK, **body})


def test_the_stream_of_calls_is_that_of_the_api_and_of_its_client() -> None:
    sent = data(PATH, NAMED, run_of(types.TextDelta(text="Let me look."), BEGUN, ENDED, SAYS))
    for event in sent:
        if event["type"] != "ping":
            assert EVENT.validate_python(event).type == event["type"]
    starts = [event["content_block"] for event in sent if event["type"] == "content_block_start"]
    assert [block["type"] for block in starts] == ["text", "mcp_tool_use", "mcp_tool_result", "text"]
    assert (starts[1]["id"], starts[1]["name"], starts[1]["server_name"]) == ("mcptoolu_1", "read", "docs")
    assert starts[2]["tool_use_id"] == "mcptoolu_1"
    assert starts[2]["content"] == [{"type": "text", "text": "page 1"}]
    pieces = [event["delta"] for event in sent if event["type"] == "content_block_delta"]
    assert {"type": "input_json_delta", "partial_json": '{"page":1}'} in pieces
    assert [event["index"] for event in sent if event["type"] == "content_block_stop"] == [0, 1, 2, 3]


def test_a_whole_answer_has_the_same_blocks() -> None:
    whole = reply(PATH, NAMED, run_of(BEGUN, ENDED, SAYS))
    use, result, text = whole["content"]
    assert use == {
        "type": "mcp_tool_use", "id": "mcptoolu_1", "name": "read", "server_name": "docs", "input": {"page": 1},
    }  # fmt: skip
    assert (result["is_error"], result["tool_use_id"]) == (False, "mcptoolu_1")
    assert text["text"] == "It says 1."
    BetaMessage.model_validate(whole)


def test_calls_are_hidden_from_clients_that_name_no_servers() -> None:
    events = run_of(types.TextDelta(text="Let me look."), BEGUN, ENDED, SAYS)
    assert [block["type"] for block in reply(PATH, ASK, events)["content"]] == ["text", "text"]
    starts = [event for event in data(PATH, ASK, events) if event["type"] == "content_block_start"]
    assert [start["content_block"]["type"] for start in starts] == ["text", "text"]


def test_an_answer_is_a_part_of_the_next_conversation() -> None:
    failed = types.ToolEnded(id="call_1", text="no such page", is_error=True)
    content = reply(PATH, NAMED, run_of(types.TextDelta(text="Let me look."), BEGUN, failed, SAYS))["content"]
    messages = [*ASK["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": "And?"}]
    request = decode(PATH, {**NAMED, "messages": messages})
    assert [(m.role, m.text, [call.name for call in m.tool_calls]) for m in request.messages] == [
        ("user", "Hi", []),
        ("assistant", "Let me look.", ["docs__read"]),
        ("tool", "Error: no such page", []),
        ("assistant", "It says 1.", []),
        ("user", "And?", []),
    ]
    assert request.messages[1].tool_calls[0].id == request.messages[2].tool_call_id == "mcptoolu_1"


def test_parallel_calls_are_one_turn() -> None:
    use = [
        {"type": "mcp_tool_use", "id": f"mcptoolu_{i}", "name": "read", "server_name": "docs", "input": {}}
        for i in range(2)
    ]
    results = [{"type": "mcp_tool_result", "tool_use_id": f"mcptoolu_{i}", "content": f"{i}"} for i in range(2)]
    messages = [*ASK["messages"], {"role": "assistant", "content": [*use, *results]}, *ASK["messages"]]
    request = decode(PATH, {**NAMED, "messages": messages})
    assert [(m.role, m.text, len(m.tool_calls)) for m in request.messages[1:]] == [
        ("assistant", "", 2),
        ("tool", "0", 0),
        ("tool", "1", 0),
        ("user", "Hi", 0),
    ]


def test_an_answer_at_its_limit_of_calls_is_paused() -> None:
    limited = types.Finished(reason=types.StopReason.TOOL_LIMIT)
    assert reply(PATH, NAMED, run_of(BEGUN, ENDED, end=limited))["stop_reason"] == "pause_turn"
