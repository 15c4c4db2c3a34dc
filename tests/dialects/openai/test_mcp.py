"""Servers of tools in the Responses API: the tools of a request, the items of calls and approvals, their events."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from mullama.chat import types
from mullama.chat.tool_servers import ALWAYS, NO_APPROVAL, Approval, ApprovalRule
from mullama.errors import EngineFailed, Invalid, Unsupported
from tests.dialects.wire import CALL, CONTEXT, HELLO, STARTED, data, decode, endpoint, reply, run_of, stream

PATH = "/v1/responses"
DOCS: dict[str, Any] = {"type": "mcp", "server_label": "docs"}
ASK: dict[str, Any] = {"model": "tiny", "input": "Hello", "tools": [DOCS]}
LISTED = types.ToolsListed(
    server="docs", tools=(types.Tool(name="read", description="reads", parameters={"type": "object"}),)
)
BEGUN = types.ToolStarted(id="call_1", server="docs", name="read", arguments={"page": 1})
ENDED = types.ToolEnded(id="call_1", text="page 1")
ASKED = types.ApprovalNeeded(id="call_2", server="docs", name="write", arguments={"page": 2})
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def server(**more: Any) -> Any:
    [found] = decode(PATH, {**ASK, "tools": [{**DOCS, **more}]}).tool_servers
    return found


def test_a_server_is_named_by_its_label_or_its_address() -> None:
    assert (server().label, server().url, server().place) == ("docs", "", "tools[0]")
    assert server(server_url="https://mcp.example.org/mcp").url == "https://mcp.example.org/mcp"
    assert not decode(PATH, ASK).warnings


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (None, ALWAYS),
        ("always", ALWAYS),
        ("never", NO_APPROVAL),
        ({"never": {"tool_names": ["read"]}}, ApprovalRule(others=True, names=("read",))),
        ({"always": {"tool_names": ["write"]}}, ApprovalRule(names=("write",))),
        ({"always": {"tool_names": ["write"]}, "never": {"tool_names": ["read"]}},
         ApprovalRule(others=True, names=("read",))),
        ({"always": {}}, ALWAYS),
        ({"never": {}}, NO_APPROVAL),
        ({}, ALWAYS),
    ],
)  # fmt: skip
def test_approvals_are_those_of_the_api(given: Any, rule: ApprovalRule) -> None:
    assert server(require_approval=given).approve == rule


@pytest.mark.parametrize(
    ("given", "only"), [(None, None), (["read"], ("read",)), ({"tool_names": ["read"]}, ("read",)), ({}, None)]
)
def test_a_request_chooses_tools_of_a_server(given: Any, only: Any) -> None:
    assert server(allowed_tools=given).only == only


@pytest.mark.parametrize(
    ("more", "error", "field"),
    [
        ({"server_label": None}, Invalid, "tools[0].server_label"),
        ({"connector_id": "connector_gmail"}, Unsupported, "tools[0].connector_id"),
        ({"allowed_tools": "read"}, Invalid, "tools[0].allowed_tools"),
        ({"allowed_tools": {"read_only": True}}, Unsupported, "tools[0].allowed_tools.read_only"),
        ({"require_approval": "often"}, Invalid, "tools[0].require_approval"),
        ({"require_approval": {"never": {"read_only": True}}}, Unsupported,
         "tools[0].require_approval.never.read_only"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_honoured_is_refused_by_name(more: Any, error: type[Invalid], field: str) -> None:
    with pytest.raises(error) as raised:
        server(**more)
    assert raised.value.field == field


def test_credentials_of_a_request_are_noted() -> None:
    assert server(authorization="secret").credentials == "authorization"
    assert server(headers={"X-Key": "secret"}).credentials == "headers"


def test_a_choice_names_a_server_or_one_of_its_tools() -> None:
    any_tool = decode(PATH, {**ASK, "tool_choice": {"type": "mcp", "server_label": "docs"}}).tool_choice
    assert any_tool == types.ToolChoice(mode="required", server="docs")
    one = decode(PATH, {**ASK, "tool_choice": {"type": "mcp", "server_label": "docs", "name": "read"}}).tool_choice
    assert one == types.ToolChoice(mode="required", server="docs", names=("docs__read",))
    with pytest.raises(Invalid, match="not among the tools"):
        decode(PATH, {**ASK, "tool_choice": {"type": "mcp", "server_label": "other"}})
    assert decode(PATH, {**ASK, "tool_choice": "required"}).tool_choice.mode == "required"


def item(kind: str, id: str, name: str = "read", **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": id, "server_label": "docs", "name": name, "arguments": '{"page": 1}', **more}


def turns(*items: Any) -> list[tuple[str, str, list[str]]]:
    request = decode(PATH, {**ASK, "input": [{"role": "user", "content": "Hi"}, *items]})
    return [(m.role, m.text, [call.name for call in m.tool_calls]) for m in request.messages[1:]]


def test_a_call_that_the_server_made_is_a_call_and_a_result() -> None:
    assert turns(item("mcp_call", "mcp_1", output="page 1", error=None)) == [
        ("assistant", "", ["docs__read"]),
        ("tool", "page 1", []),
    ]


@pytest.mark.parametrize(
    "error",
    [
        "no such page",
        {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no such page"}]},
        {"type": "http_error", "code": 404, "message": "no such page"},
    ],
)
def test_an_error_of_a_call_is_read_in_every_form(error: Any) -> None:
    assert turns(item("mcp_call", "mcp_1", output=None, error=error))[-1] == ("tool", "Error: no such page", [])


def test_an_approval_has_its_call_made_now() -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    body = {**ASK, "input": [{"role": "user", "content": "Hi"}, item("mcp_approval_request", "mcpr_1"), answer]}
    request = decode(PATH, body)
    assert request.approvals == (Approval(id="mcpr_1", approved=True),)
    assert [(m.role, m.text) for m in request.messages[1:]] == [("assistant", ""), ("tool", "")]
    assert request.messages[1].tool_calls[0].id == request.messages[2].tool_call_id == "mcpr_1"


def test_a_call_that_was_made_after_its_approval_is_not_made_again() -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    made = item("mcp_call", "mcp_2", output="page 1", approval_request_id="mcpr_1")
    body = {**ASK, "input": [{"role": "user", "content": "Hi"}, item("mcp_approval_request", "mcpr_1"), answer, made]}
    request = decode(PATH, body)
    assert request.approvals == ()
    assert [(m.role, m.text) for m in request.messages[1:]] == [("assistant", ""), ("tool", "page 1")]


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([{"approve": False}], "Error: A person refused this call."),
        ([{"approve": False, "reason": "too dear"}], "Error: A person refused this call. The reason: too dear"),
        ([], "Error: This call was not made, because it was not approved."),
    ],
)
def test_a_call_that_nobody_approves_has_a_result_that_says_so(answers: list[Any], text: str) -> None:
    given = [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", **answer} for answer in answers]
    later = {"role": "user", "content": "And?"}
    assert turns(item("mcp_approval_request", "mcpr_1"), *given, later) == [
        ("assistant", "", ["docs__read"]),
        ("tool", text, []),
        ("user", "And?", []),
    ]


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (["mcpr_2"], "'mcpr_2' names no approval request of this conversation"),
        (["mcpr_1", "mcpr_1"], "'mcpr_1' was answered already"),
    ],
)
def test_an_answer_without_its_question_and_a_second_one_are_refused(items: list[str], text: str) -> None:
    given = [{"type": "mcp_approval_response", "approval_request_id": id, "approve": True} for id in items]
    with pytest.raises(Invalid, match=text) as raised:
        turns(item("mcp_approval_request", "mcpr_1"), *given)
    assert raised.value.field == "input"


def test_an_answer_before_its_question_is_refused() -> None:
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    with pytest.raises(Invalid, match="names no approval request"):
        turns(answer, item("mcp_approval_request", "mcpr_1"))


def test_a_list_of_tools_is_not_asked_for_again() -> None:
    listed = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "docs", "tools": []}
    request = decode(PATH, {**ASK, "input": [listed, {"role": "user", "content": "Hi"}]})
    assert request.tool_servers[0].listed
    assert [m.role for m in request.messages] == ["user"]


def test_the_stream_of_calls_is_that_of_the_api_and_of_its_client() -> None:
    events = run_of(LISTED, BEGUN, ENDED, types.TextDelta(text="It says 1."), ASKED)
    sent = data(PATH, ASK, events)
    kinds = [event["type"] for event in sent]
    assert kinds[2:14] == [
        "response.output_item.added",
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    for event in sent:
        assert EVENT.validate_python(event).type == event["type"]
    output = sent[-1]["response"]["output"]
    assert [one["type"] for one in output] == ["mcp_list_tools", "mcp_call", "message", "mcp_approval_request"]
    assert [one["id"].split("_")[0] for one in output] == ["mcpl", "mcp", "msg", "mcpr"]
    assert output[1]["arguments"] == '{"page":1}'
    assert (output[1]["output"], output[1]["error"], output[1]["status"]) == ("page 1", None, "completed")
    assert output == reply(PATH, ASK, events)["output"]
    Response.model_validate(sent[-1]["response"], strict=False)


def test_a_failed_call_and_a_server_that_is_down_have_their_events() -> None:
    failed = types.ToolEnded(id="call_1", text="no such page", is_error=True)
    sent = data(PATH, ASK, run_of(types.ToolsListed(server="docs", error="it is down"), BEGUN, failed))
    assert {"response.mcp_list_tools.failed", "response.mcp_call.failed"} <= {event["type"] for event in sent}
    listed, call = sent[-1]["response"]["output"]
    assert (listed["error"], listed["tools"]) == ("it is down", [])
    assert call["error"]["content"] == [{"type": "text", "text": "no such page"}]


def test_calls_of_one_turn_keep_their_places_in_whatever_order_they_end() -> None:
    other = types.ToolStarted(id="call_9", server="docs", name="list", arguments={})
    events = run_of(BEGUN, other, types.ToolEnded(id="call_9", text="two"), ENDED)
    sent = data(PATH, ASK, events)
    assert [one["output"] for one in sent[-1]["response"]["output"]] == ["page 1", "two"]
    done = [event for event in sent if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [1, 0]


def test_calls_that_the_end_interrupts_are_incomplete() -> None:
    one = endpoint(PATH)
    encoder: Any = stream(one, decode(PATH, {**ASK, "stream": True}))
    for event in (STARTED, BEGUN):
        list(encoder.feed(event))
    last = [frame.data for frame in encoder.fail(EngineFailed("died"))]
    assert last[-1]["response"]["output"][0]["status"] == "incomplete"
    assert encoder.at("failed")["output"][0]["type"] == "mcp_call"


def test_an_answer_is_input_of_the_next_request() -> None:
    own = (types.ToolCallStarted(index=0, id=CALL.id, name=CALL.name), types.ToolCallFinished(index=0, call=CALL))
    output = reply(PATH, ASK, run_of(LISTED, *own, BEGUN, ENDED))["output"]
    given = {"type": "function_call_output", "call_id": "call_7f3a", "output": "rain"}
    assert turns(*output, given) == [
        ("assistant", "", ["weather", "docs__read"]),
        ("tool", "page 1", []),
        ("tool", "rain", []),
    ]


def test_the_limit_of_calls_is_read() -> None:
    assert decode(PATH, {**ASK, "max_tool_calls": 3}).max_tool_calls == 3
    with pytest.raises(Invalid, match="max_tool_calls"):
        decode(PATH, {**ASK, "max_tool_calls": -1})


def test_a_compaction_offers_no_tools() -> None:
    request = decode("/v1/responses/compact", ASK)
    assert (request.tool_servers, request.tools, request.tool_choice.mode) == ((), (), "none")
    assert CONTEXT.operation is None


def test_an_answer_at_its_limit_of_calls_says_so() -> None:
    limited = types.Finished(reason=types.StopReason.TOOL_LIMIT)
    body = reply(PATH, ASK, run_of(BEGUN, ENDED, end=limited))
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_tool_calls"})
    assert reply("/v1/chat/completions", HELLO, run_of(end=limited))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_texts_around_a_hidden_call_are_lines_of_their_own(path: str) -> None:
    events = run_of(types.TextDelta(text="Let me look."), BEGUN, ENDED, types.TextDelta(text="It says 1."))
    whole = reply(path, HELLO, events)
    message = whole["choices"][0]["message"] if "choices" in whole else whole["message"]
    assert message["content"] == "Let me look.\nIt says 1."
    assert "tool_calls" not in message
    pieces = [
        (event["choices"][0]["delta"] if "choices" in event else event["message"]).get("content") or ""
        for event in data(path, HELLO, events)
        if event.get("choices") != []
    ]
    assert "".join(pieces) == message["content"]
