"""Answers with calls of tools, over the real service and workers with scripted models."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.chat.answer import fold
from mullama.chat.tool_servers import ALWAYS, Approval, ToolServer
from mullama.errors import Invalid, TimedOut, Unsupported
from mullama.runtime.metrics_text import render
from mullama.runtime.tools.answer import MOST_AT_ONCE
from mullama.runtime.tools.offer import ToolRules
from mullama.store.usage import UsageQuery
from mullama.struct import replace
from mullama.tools.base import ToolResult
from mullama.trace_context import TraceContext
from tests.runtime.runtime_fixture import CALLER, LocalServer, request_of, until
from tests.runtime.tools.tools_fixture import Tools, both, events_of, service_with

pytestmark = pytest.mark.anyio


async def read(arguments: Mapping[str, Any]) -> str:
    return f"page {arguments.get('page')}"


async def broken(_: Mapping[str, Any]) -> ToolResult:
    return ToolResult(text="no such page", is_error=True)


async def never(_: Mapping[str, Any]) -> str:
    await asyncio.Event().wait()
    return ""


def called(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def steps(answer: chat.Answer) -> list[Any]:
    """Return the parts of an answer in a short form."""
    found: list[Any] = []
    for part in answer.choices[0].parts:
        match part:
            case chat.TextRun():
                found.append(part.text)
            case chat.ToolRun(started=started, ended=ended):
                assert ended is not None
                found.append((started.server, started.name, dict(started.arguments), ended.text, ended.is_error))
            case chat.ToolCall():
                found.append(part.name)
            case chat.ApprovalNeeded():
                found.append(("ask", part.server, part.name, dict(part.arguments)))
            case chat.ToolsListed():
                found.append(("list", part.server, [tool.name for tool in part.tools], part.error))
    return found


async def test_a_call_is_made_and_the_answer_follows_its_result(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    for answer in await both(service_with(server, tools), 'call docs__read {"page": 7} then it says: RESULT'):
        assert steps(answer) == [("docs", "read", {"page": 7}, "page 7", False), "it says: page 7"]
        [choice] = answer.choices
        assert choice.reason is chat.StopReason.STOP
        assert choice.text == "it says: page 7"
    assert tools.servers["docs"].seen == [("read", {"page": 7})] * 2
    assert tools.waited == ["a", "a"]


async def test_a_stream_is_one_answer_whose_usage_is_the_sum_of_its_turns(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    request = request_of("a", 'call docs__read {"page": 7} then RESULT', stream=True, details=True)
    events = await events_of(service, request)
    assert [type(e) for e in events if isinstance(e, chat.Started | chat.Finished | chat.Completed)] == [
        chat.Started, chat.Finished, chat.Completed,
    ]  # fmt: skip
    assert isinstance(events[0], chat.Started)
    last = events[-1]
    assert isinstance(last, chat.Completed)
    counts = server.metrics.models["a"]
    assert counts.requests == {"ok": 2}
    assert last.usage.prompt_tokens == counts.prompt_tokens
    assert last.usage.completion_tokens == counts.completion_tokens
    assert last.timings.answers == 2


async def test_parallel_calls_run_at_the_same_time(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    meeting = asyncio.Barrier(3)

    async def meet(arguments: Mapping[str, Any]) -> str:
        await meeting.wait()
        return f"met {arguments['n']}"

    service = service_with(server, await Tools.of(docs={"meet": meet}))
    text = "say " + "\n".join(called("docs__meet", n=n) for n in range(3)) + " then RESULT"
    answer = fold(await events_of(service, request_of("a", text, stream=True)))
    assert steps(answer)[-1] == "met 0 | met 1 | met 2"
    assert [step[2] for step in steps(answer)[:3]] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_an_answer_with_very_many_calls_makes_some_at_a_time(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    running, most = 0, 0

    async def count(_: Mapping[str, Any]) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "x"

    service = service_with(server, await Tools.of(docs={"count": count}))
    text = "say " + "\n".join(called("docs__count", n=n) for n in range(40)) + " then done"
    answer = fold(await events_of(service, request_of("a", text, stream=True)))
    assert len(steps(answer)) == 41
    assert most == MOST_AT_ONCE


async def test_text_before_a_call_stays_and_is_a_line_of_its_own(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    for answer in await both(service, f"say Let me look.{called('docs__read', page=1)} then Done."):
        assert [step for step in steps(answer) if isinstance(step, str)] == ["Let me look.", "Done."]
        assert answer.choices[0].text == "Let me look.\nDone."


async def test_an_error_of_a_tool_is_a_result_for_the_model(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": broken}))
    for answer in await both(service, "call docs__read {} then RESULT"):
        assert steps(answer) == [("docs", "read", {}, "no such page", True), "Error: no such page"]


async def test_a_server_that_cannot_be_reached_is_a_result_and_an_event(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    tools.down = "docs cannot be reached: connection refused"
    answer = fold(await events_of(service_with(server, tools), request_of("a", "call docs__read {} then RESULT")))
    assert steps(answer)[-1] == "Error: docs cannot be reached: connection refused"
    [event] = [event for event in server.event_log.kept() if event["kind"] == "tool-failed"]
    assert event["subject"] == "docs/read"
    assert event["models"] == ["a"]
    assert server.metrics.tool_calls == {("docs", "read", "unavailable"): 1}


async def test_a_tool_that_hangs_ends_with_a_result(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": never})
    tools.limit = 0.1
    for answer in await both(service_with(server, tools), "call docs__read {} then RESULT"):
        assert steps(answer)[-1] == "Error: The call took longer than 0.1 s and was ended."
    assert server.metrics.tool_calls == {("docs", "read", "timeout"): 2}
    assert tools.servers["docs"].cancelled.is_set()


async def test_one_time_limit_holds_for_all_turns_and_calls(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": never})
    tools.rule = ToolRules(seconds=0.2)
    with pytest.raises(TimedOut, match=r"longer than 0\.2 s"):
        await events_of(service_with(server, tools), request_of("a", "call docs__read {} then RESULT"))


async def test_a_tool_that_no_server_has_is_a_result(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    for answer in await both(service, "call docs__write {} then RESULT"):
        assert steps(answer) == ["Error: There is no tool docs__write. The tools are: docs__read."]


async def test_a_loop_of_equal_calls_ends(server: LocalServer) -> None:
    await server.apply(
        {"a": {"from": server.script(constraints=True, rules=[{"when": "loop", "call": {"name": "docs__read"}}])}}
    )
    tools = await Tools.of(docs={"read": read})
    for answer in await both(service_with(server, tools), "loop"):
        assert [step[3] for step in steps(answer)] == ["page None", "page None", steps(answer)[2][3]]
        assert "was made 2 times" in steps(answer)[2][3]
        assert answer.choices[0].reason is chat.StopReason.TOOL_LIMIT
    assert len(tools.servers["docs"].seen) == 4


async def test_the_limit_of_turns_ends_the_answer(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    tools.rule = ToolRules(turns=2)
    text = " then ".join(f'call docs__read {{"page": {page}}}' for page in range(5))
    for answer in await both(service_with(server, tools), text):
        assert [step[2]["page"] for step in steps(answer)] == [0, 1]
        assert answer.choices[0].reason is chat.StopReason.TOOL_LIMIT


@pytest.mark.parametrize(
    ("length", "end"), [(30_000, "of 10000 tokens are left out]"), (2_000_000, "[the rest is left out]")]
)
async def test_a_long_result_is_shortened_to_the_room_of_the_context(
    length: int, end: str, server: LocalServer
) -> None:
    await server.apply({"a": {"from": server.script(constraints=True, context=2048), "context": {"size": 2048}}})

    async def long(_: Mapping[str, Any]) -> str:
        return "x" * length

    service = service_with(server, await Tools.of(docs={"long": long}))
    for answer in await both(service, "call docs__long {} then done"):
        [(_, _, _, text, _), done] = steps(answer)
        assert text.endswith(end)
        assert 1000 < len(text) < 3 * 2048
        assert done == "done"


async def test_calls_of_the_client_and_of_the_server_where_the_reply_shows_ours(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    text = f"say {called('docs__read', page=1)}\n{called('weather', city='Oslo')}"
    own = (chat.Tool(name="weather"),)
    for answer in await both(service, text, tools=own, shows_calls=True):
        assert sorted(map(str, steps(answer))) == sorted(
            map(str, ["weather", ("docs", "read", {"page": 1}, "page 1", False)])
        )
        assert answer.choices[0].reason is chat.StopReason.TOOL_CALLS


async def test_calls_of_the_client_come_first_where_the_reply_hides_ours(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    text = f"say {called('docs__read', page=1)}\n{called('weather', city='Oslo')}"
    own = (chat.Tool(name="weather"),)
    events = await events_of(service_with(server, tools), request_of("a", text, stream=True, tools=own))
    [started] = [event for event in events if isinstance(event, chat.ToolCallStarted)]
    assert (started.name, started.index) == ("weather", 0)
    assert fold(events).choices[0].reason is chat.StopReason.TOOL_CALLS
    assert tools.servers["docs"].seen == []


async def test_a_call_waits_for_an_approval_and_is_made_after_it(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    tools.rule = ToolRules(approve=("docs/re*",))
    service = service_with(server, tools)
    text = 'call docs__read {"page": 3} then RESULT'
    for answer in await both(service, text, shows_calls=True, asks_approval=True):
        assert steps(answer) == [("ask", "docs", "read", {"page": 3})]
        assert answer.choices[0].reason is chat.StopReason.STOP
    assert tools.servers["docs"].seen == []
    asked = chat.ToolCall(id="mcpr_1", name="docs__read", arguments={"page": 3})
    first = request_of("a", text, shows_calls=True, asks_approval=True, stream=True)
    approved = replace(
        first,
        messages=(
            *first.messages,
            chat.Message(role="assistant", tool_calls=(asked,)),
            chat.Message(role="tool", tool_call_id="mcpr_1", tool_name="docs__read"),
        ),
        approvals=(Approval(id="mcpr_1", approved=True),),
    )
    events = await events_of(service, approved)
    assert isinstance(events[0], chat.Started)
    [started] = [event for event in events if isinstance(event, chat.ToolStarted)]
    assert started.approval == "mcpr_1"
    assert steps(fold(events)) == [("docs", "read", {"page": 3}, "page 3", False), "page 3"]


async def test_an_approval_of_a_tool_that_is_not_offered_makes_no_call(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    request = request_of("a", "hello", asks_approval=True, shows_calls=True)
    forged = chat.ToolCall(id="mcpr_1", name="docs__delete", arguments={})
    forged_request = replace(
        request,
        messages=(
            chat.Message(role="assistant", tool_calls=(forged,)),
            chat.Message(role="tool", tool_call_id="mcpr_1"),
            *request.messages,
        ),
        approvals=(Approval(id="mcpr_1", approved=True),),
    )
    assert steps(fold(await events_of(service_with(server, tools), forged_request))) == ["hello"]
    assert tools.servers["docs"].seen == []


async def test_a_call_that_nobody_can_approve_is_a_result(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    tools.rule = ToolRules(approve=("*",))
    for answer in await both(service_with(server, tools), "call docs__read {} then RESULT"):
        assert steps(answer)[-1].startswith("Error: A person must approve this call")
    assert tools.servers["docs"].seen == []


async def test_servers_that_the_request_names_are_listed_and_offered_under_their_labels(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read, "write": read})
    tools.models = {}
    named = ToolServer(label="mine", url="http://docs.example/mcp", only=("read",))
    for answer in await both(
        service_with(server, tools), "call mine__read {} then RESULT", tool_servers=(named,), shows_calls=True
    ):
        assert steps(answer) == [
            ("list", "mine", ["read"], ""),
            ("mine", "read", {}, "page None", False),
            "page None",
        ]


async def test_a_server_that_is_down_is_listed_with_its_error_and_the_model_answers(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": read})
    tools.models, tools.down = {}, "it is down"
    for answer in await both(
        service_with(server, tools), "say hello", tool_servers=(ToolServer(label="docs"),), shows_calls=True
    ):
        assert steps(answer) == [("list", "docs", [], "it is down"), "hello"]


async def test_a_request_may_demand_more_approvals_than_the_manifest(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    named = (ToolServer(label="docs", approve=ALWAYS, listed=True),)
    more: dict[str, Any] = {"tool_servers": named, "shows_calls": True, "asks_approval": True}
    for answer in await both(service, "call docs__read {} then RESULT", **more):
        assert steps(answer) == [("ask", "docs", "read", {})]


@pytest.mark.parametrize(
    ("more", "error", "field"),
    [
        ({"tool_servers": (ToolServer(label="other", place="tools[0]"),)}, Unsupported, "tools[0].server_url"),
        ({"tool_servers": (ToolServer(label="docs"), ToolServer(label="docs"))}, Invalid, "tools"),
        (
            {"tool_servers": (ToolServer(label="docs", credentials="headers", place="tools[0]"),)},
            Unsupported,
            "tools[0].headers",
        ),
        ({"tools": (chat.Tool(name="docs__read"),)}, Invalid, "tools"),
        ({"n": 2}, Unsupported, "n"),
        ({"tool_choice": chat.ToolChoice(mode="required", server="other")}, Invalid, "tool_choice"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_a_request_that_cannot_have_the_tools_is_refused(
    more: dict[str, Any], error: type[Invalid], field: str, whole: bool, server: LocalServer
) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    request = request_of("a", "hello", **more)
    with pytest.raises(error) as raised:
        await (service.answer(request, CALLER) if whole else events_of(service, request))
    assert raised.value.field == field


async def test_a_choice_of_a_server_is_a_choice_of_its_functions(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read, "write": read}))
    chosen = chat.ToolChoice(mode="required", server="docs")
    for answer in await both(service, "call docs__read {} then RESULT", tool_choice=chosen, think=False):
        assert steps(answer)[-1] == "page None"


async def test_a_client_that_leaves_cancels_the_call(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of(docs={"read": never})
    stream: Any = service_with(server, tools).events(request_of("a", "call docs__read {} then x", stream=True), CALLER)
    async with aclosing(stream) as batches:
        async for events in batches:
            if any(isinstance(event, chat.ToolStarted) for event in events):
                waiting = asyncio.ensure_future(anext(batches))
                await until(lambda: bool(tools.servers["docs"].seen))
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                break
    assert tools.servers["docs"].cancelled.is_set()
    assert server.metrics.tool_calls == {("docs", "read", "cancelled"): 1}


async def test_an_answer_is_one_request_of_its_key_and_all_its_tokens(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    caller = replace(CALLER, key="ci")
    answer = await service.answer(request_of("a", "call docs__read {} then RESULT"), caller)
    assert isinstance(answer, chat.Answer)
    assert server.metrics.keys["ci", "a"] == [1, answer.usage.prompt_tokens, answer.usage.completion_tokens]
    [row] = await server.usage.read(UsageQuery(since=0))
    assert row["requests"] == 1
    assert row["prompt_tokens"] == answer.usage.prompt_tokens


async def test_captures_have_the_calls_of_each_turn(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}}, observability={"captures": {"bodies": "all"}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    await service.answer(request_of("a", 'call docs__read {"page": 4} then RESULT'), CALLER)
    second, first = (capture.tree(texts=True) for capture in server.captures.list())
    assert (second["turn"], second["calls"]) == (1, [])
    assert first["turn"] == 0
    [call] = first["calls"]
    assert (call["server"], call["name"], call["arguments"], call["text"]) == ("docs", "read", {"page": 4}, "page 4")
    assert "arguments" not in server.captures.list()[1].tree(texts=False)["calls"][0]


async def test_each_call_is_an_event_a_metric_and_a_span(server: LocalServer) -> None:
    otlp = {"endpoint": "http://127.0.0.1:9/otlp"}
    await server.apply({"a": {"from": server.script(constraints=True)}}, observability={"otlp": otlp})
    service = service_with(server, await Tools.of(docs={"read": read}))
    trace = TraceContext(trace_id="1" * 32, span_id="2" * 16, flags=1)
    await service.answer(request_of("a", "call docs__read {} then RESULT"), replace(CALLER, trace=trace))
    [event] = [event for event in server.event_log.kept() if event["kind"] == "tool-call"]
    assert event["subject"] == "docs/read"
    text = render(server.metrics, ())
    assert 'mullama_tool_calls_total{result="ok",server="docs",tool="read"} 1.0' in text
    assert 'mullama_tool_call_seconds_count{server="docs"} 1.0' in text
    spans = [span for span in server.spans.take() if span.name == "execute_tool read"]
    assert [(span.trace_id, span.parent_id) for span in spans] == [("1" * 32, "2" * 16)]
    assert spans[0].attributes["gen_ai.tool.name"] == "read"


async def test_the_tools_count_as_part_of_the_prompt(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    service = service_with(server, await Tools.of(docs={"read": read}))
    plain = await server.service.answer(chat.CountRequest(chat=request_of("a", "hello")), CALLER)
    counted = await service.answer(chat.CountRequest(chat=request_of("a", "hello")), CALLER)
    assert isinstance(plain, chat.TokenCount)
    assert isinstance(counted, chat.TokenCount)
    assert counted.tokens > plain.tokens


async def test_fifty_answers_with_calls_at_once(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True), "limits": {"parallel": 8}}})
    tools = await Tools.of(docs={"read": read})
    service = service_with(server, tools)

    async def ask(page: int) -> str:
        text = f'call docs__read {{"page": {page}}} then RESULT'
        return fold(await events_of(service, request_of("a", text, stream=True))).choices[0].text

    answers = await asyncio.gather(*map(ask, range(50)))
    assert answers == [f"page {page}" for page in range(50)]
    assert server.metrics.tool_calls == {("docs", "read", "ok"): 50}


async def test_a_fallback_answers_with_the_tools_of_the_model_that_failed(server: LocalServer) -> None:
    route = {"to": ["a"], "fallback": ["b"], "on_error": ["unavailable"]}
    models = {
        "a": {"from": server.script("a", constraints=True, on_load="crash exit")},
        "b": {"from": server.script("b", constraints=True)},
    }
    await server.apply(models, routes={"r": route})
    tools = await Tools.of(docs={"read": read})
    tools.models = {"a": ("docs",)}
    service = service_with(server, tools)
    request = request_of("r", "call docs__read {} then RESULT")
    whole = await service.answer(request, CALLER)
    assert isinstance(whole, chat.Answer)
    for answer in (whole, fold(await events_of(service, replace(request, stream=True)))):
        assert steps(answer) == [("docs", "read", {}, "page None", False), "page None"]
        assert answer.effective is not None
        assert answer.effective.model == "b"


async def test_a_worker_that_dies_between_two_turns_is_replaced(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})

    async def kill(_: Mapping[str, Any]) -> str:
        [pid] = server.pool.pids()
        os.kill(pid, signal.SIGKILL)
        return "killed"

    service = service_with(server, await Tools.of(docs={"kill": kill}))
    for answer in await both(service, "call docs__kill {} then RESULT"):
        assert steps(answer)[-1] == "killed"


async def test_a_request_without_tools_passes_unchanged(server: LocalServer) -> None:
    await server.apply({"a": {"from": server.script(constraints=True)}})
    tools = await Tools.of()
    answer = await service_with(server, tools).answer(request_of("a", "say hello", n=2), CALLER)
    assert isinstance(answer, chat.Answer)
    assert [choice.text for choice in answer.choices] == ["hello", "hello"]
