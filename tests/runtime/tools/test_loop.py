"""The decisions of a loop over tools, with values alone."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.tool_servers import ALWAYS, LONGEST_FUNCTION, NO_APPROVAL, ApprovalRule, ToolServer, function_name
from mullama.runtime.tools.loop import (
    Decision,
    LoopLimits,
    LoopState,
    Offered,
    beginning,
    canonical,
    continued,
    decide,
    is_ours,
    offered_tool,
    room_for_results,
    share_of,
    shortened,
    tokens_left,
    with_results,
)
from mullama.struct import replace
from mullama.tools.base import ServerTool


def offered(*names: str, approve: bool = False) -> dict[str, Offered]:
    made = (offered_tool(ServerTool(server="docs", name=name), approve=approve) for name in names)
    return {one.function: one for one in made}


def call(name: str, id: str = "call_1", **arguments: Any) -> chat.ToolCall:
    return chat.ToolCall(id=id, name=name, arguments=arguments)


def one(
    made: chat.ToolCall, tools: dict[str, Offered], state: LoopState | None = None, *, asks: bool = False
) -> Decision:
    return decide([made], state or LoopState(), tools, LoopLimits(), asks=asks)


@pytest.mark.parametrize(
    ("name", "clients", "ours"),
    [
        ("docs__read", (), True),
        ("docs__read", ("get_weather",), True),
        ("get_weather", ("get_weather",), False),
        ("docs__write", ("get_weather",), True),  # the model made it up after the names of a server
        ("write", ("get_weather",), False),  # the client answers for what it calls its own
        ("write", (), True),  # the client has no tools, so it expects no calls
    ],
)
def test_a_call_is_ours_if_we_have_the_tool_or_nobody_has_it(name: str, clients: tuple[str, ...], ours: bool) -> None:
    assert is_ours(name, offered("read"), clients) is ours


def test_a_call_of_a_tool_is_made() -> None:
    decision = one(call("docs__read", page=1), offered("read"))
    assert [verdict.action for verdict in decision.verdicts] == ["make"]
    assert decision.state.calls == decision.state.turns == 1
    assert not decision.ends
    assert not decision.closing


def test_a_tool_that_no_server_has_is_a_result_that_lists_the_tools() -> None:
    decision = one(call("docs__write"), offered("read", "list"))
    [verdict] = decision.verdicts
    assert verdict.action == "refuse"
    assert verdict.refusal == "There is no tool docs__write. The tools are: docs__list, docs__read."
    assert decision.state.calls == 0


def test_arguments_that_are_no_object_are_a_result() -> None:
    broken = chat.ToolCall(id="call_1", name="docs__read", arguments='{"page": ')
    [verdict] = one(broken, offered("read")).verdicts
    assert verdict.action == "refuse"
    assert "JSON object" in verdict.refusal


def test_a_call_that_needs_an_approval_ends_the_answer_where_the_client_can_ask() -> None:
    decision = one(call("docs__read"), offered("read", approve=True), asks=True)
    assert [verdict.action for verdict in decision.verdicts] == ["ask"]
    assert decision.ends


def test_a_call_that_needs_an_approval_is_refused_where_the_client_cannot_ask() -> None:
    decision = one(call("docs__read"), offered("read", approve=True))
    assert [verdict.action for verdict in decision.verdicts] == ["refuse"]
    assert not decision.ends


def test_a_call_of_the_client_ends_the_answer_after_ours() -> None:
    decision = decide([call("docs__read")], LoopState(), offered("read"), LoopLimits(), asks=True, others=True)
    assert [verdict.action for verdict in decision.verdicts] == ["make"]
    assert decision.ends


def test_equal_calls_are_made_twice_and_then_refused() -> None:
    state, actions, closing = LoopState(), [], []
    for arguments in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}):
        decision = one(call("docs__read", **arguments), offered("read"), state)
        state = decision.state
        actions.append(decision.verdicts[0].action)
        closing.append(decision.closing)
    assert actions == ["make", "make", "refuse"]
    assert closing == [False, False, True]


def test_equal_calls_of_one_turn_count_as_well() -> None:
    calls = [call("docs__read", str(i), page=1) for i in range(4)]
    decision = decide(calls, LoopState(), offered("read"), LoopLimits(), asks=True)
    assert [verdict.action for verdict in decision.verdicts] == ["make", "make", "refuse", "refuse"]
    assert not decision.closing


def test_other_arguments_are_another_call() -> None:
    state = LoopState()
    for page in range(6):
        decision = one(call("docs__read", page=page), offered("read"), state)
        state = decision.state
        assert decision.verdicts[0].action == "make"


def test_the_limit_of_turns_makes_the_next_answer_the_last() -> None:
    limits, state, closing = LoopLimits(turns=3), LoopState(), []
    for page in range(3):
        decision = decide([call("docs__read", page=page)], state, offered("read"), limits, asks=True)
        state = decision.state
        closing.append(decision.closing)
    assert closing == [False, False, True]


def test_the_limit_of_calls_refuses_those_above_it() -> None:
    calls = [call("docs__read", str(i), page=i) for i in range(3)]
    decision = decide(calls, LoopState(), offered("read"), LoopLimits(calls=2), asks=True)
    assert [verdict.action for verdict in decision.verdicts] == ["make", "make", "refuse"]
    assert decision.closing


def request(*messages: chat.Message, **more: Any) -> chat.ChatRequest:
    return chat.ChatRequest(model="m", messages=messages or (chat.text_message("user", "Hi"),), **more)


def test_the_next_request_has_the_answer_and_the_results_in_the_order_of_the_calls() -> None:
    calls = [call("docs__read", "a", page=1), call("docs__read", "b", page=2)]
    after = continued(request(), "Let me look.", "Hm.", calls, {"b": "two", "a": "one"})
    spoken, *results = after.messages[1:]
    assert (spoken.role, spoken.text, spoken.thinking, spoken.tool_calls) == (
        "assistant", "Let me look.", "Hm.", tuple(calls),
    )  # fmt: skip
    assert [(r.role, r.tool_call_id, r.tool_name, r.text) for r in results] == [
        ("tool", "a", "docs__read", "one"),
        ("tool", "b", "docs__read", "two"),
    ]


def test_a_required_call_is_required_once() -> None:
    first = request(tool_choice=chat.ToolChoice(mode="required", names=("docs__read",)))
    assert continued(first, "", "", [call("docs__read")], {"call_1": "x"}).tool_choice == chat.ToolChoice()
    allowed = request(tool_choice=chat.ToolChoice(mode="required", names=("a", "b")))
    after = continued(allowed, "", "", [call("a")], {"call_1": "x"})
    assert after.tool_choice == chat.ToolChoice(names=("a", "b"))


def test_a_beginning_of_the_answer_is_a_part_of_its_first_turn() -> None:
    begun = request(chat.text_message("user", "Hi"), chat.text_message("assistant", "Well,"), continue_final=True)
    after = continued(begun, " I look.", "", [call("docs__read")], {"call_1": "x"})
    assert [message.role for message in after.messages] == ["user", "assistant", "tool"]
    assert [part.text for part in after.messages[1].content if isinstance(part, chat.TextPart)] == ["Well,", " I look."]
    assert not after.continue_final


def test_results_fill_the_empty_places_of_their_calls() -> None:
    places = (
        chat.Message(role="tool", tool_call_id="a"),
        chat.Message(role="tool", tool_call_id="b", content=(chat.TextPart(text="was refused"),)),
    )
    after = with_results(request(*places), {"a": "one", "b": "two"})
    assert [message.text for message in after.messages] == ["one", "was refused"]


@pytest.mark.parametrize(
    ("context", "used", "limit", "room"),
    [
        (0, 10, None, None),
        (4000, 1000, None, 2000),
        (4000, 1000, 100, 2900),
        (4000, 1000, -1, 2000),
        (4000, 3990, None, 32),
    ],
)
def test_results_have_the_room_that_the_conversation_and_the_answer_leave(
    context: int, used: int, limit: int | None, room: int | None
) -> None:
    assert room_for_results(context, used, limit) == room


def test_results_share_the_room_that_is_left() -> None:
    assert share_of(900, 3) == 300
    assert share_of(10, 3) == 32
    assert share_of(900, 0) == 900


def test_a_long_result_keeps_its_beginning_and_names_what_is_missing() -> None:
    pieces = [b"ab"] * 100
    assert shortened(pieces, 100) == "ab" * 100
    assert shortened(pieces, 40) == "ab" * 24 + "\n[76 of 100 tokens are left out]"


def test_only_the_beginning_of_a_very_long_result_is_tokenized() -> None:
    assert beginning("x" * 100, 4) == "x" * 100
    assert beginning("x" * 1000, 4) == "x" * 128
    assert shortened([b"ab"] * 40, 40, whole=False) == "ab" * 24 + "\n[the rest is left out]"


def test_a_character_is_not_cut_in_half() -> None:
    pieces = [bytes([byte]) for byte in "é".encode() * 40]
    assert shortened(pieces, 33) == "é" * 8 + "\n[63 of 80 tokens are left out]"


@pytest.mark.parametrize(("limit", "spent", "left"), [(None, 5, None), (-1, 5, -1), (10, 4, 6), (10, 14, 0)])
def test_a_limit_of_tokens_holds_for_all_turns(limit: int | None, spent: int, left: int | None) -> None:
    assert tokens_left(limit, spent) == left


def test_arguments_are_equal_in_any_order() -> None:
    assert canonical({"b": [1, {"d": 1, "c": 2}], "a": "é"}) == canonical({"a": "é", "b": [1, {"c": 2, "d": 1}]})


@pytest.mark.parametrize(
    ("rule", "needs"),
    [
        (NO_APPROVAL, {"read": False, "write": False}),
        (ALWAYS, {"read": True, "write": True}),
        (ApprovalRule(names=("write",)), {"read": False, "write": True}),
        (ApprovalRule(others=True, names=("read",)), {"read": False, "write": True}),
    ],
)
def test_a_rule_names_the_tools_that_need_an_approval(rule: ApprovalRule, needs: dict[str, bool]) -> None:
    assert {name: rule.needs(name) for name in needs} == needs


def test_a_server_offers_the_tools_that_the_request_allows() -> None:
    server = ToolServer(label="docs", only=("read", "write"), without=("write",))
    assert [name for name in ("read", "write", "list") if server.offers(name)] == ["read"]
    assert replace(server, only=None).offers("list")


def test_function_names_have_the_characters_and_the_length_of_every_dialect() -> None:
    assert function_name("docs", "read_file") == "docs__read_file"
    strange, other = function_name("docs", "read file"), function_name("docs", "read.file")
    assert strange.startswith("docs__read_file_")
    assert strange != other
    assert len(function_name("docs", "x" * 80)) == LONGEST_FUNCTION
