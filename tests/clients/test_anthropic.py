"""The anthropic package against a real server: messages, tools, thinking, counts, models."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.clients.client_helpers import ADA, FRANCE, OSLO, PERSON, block, calling, user
from tests.official_clients import anthropic

TOOLS: Any = [block(), block("get_time", {"type": "object", "properties": {}})]
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


def said(message: Any) -> str:
    return "".join(b.text for b in message.content if b.type == "text")


def test_an_answer_has_everything_that_typed_clients_require(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="tiny", max_tokens=60, messages=user(FRANCE))

    assert answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert "Paris" in said(answer)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens > 2
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 5
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_the_accumulator_of_the_client_takes_the_stream(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model="tiny", max_tokens=60, messages=user(FRANCE))
    with claude.messages.stream(model="tiny", max_tokens=60, messages=user(FRANCE)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text == said(final) == said(whole)
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_the_events_come_in_the_order_that_clients_count_on(claude: anthropic.Anthropic) -> None:
    asked = "think of it\n" + calling(("get_weather", {"city": "Oslo"}), ("get_time", {}))
    with claude.messages.create(
        model="script", max_tokens=500, messages=user(asked), tools=TOOLS, stream=True
    ) as stream:
        events: list[Any] = list(stream)

    kinds = [e.type for e in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert events[0].message.content == []
    assert events[0].message.usage.input_tokens > 0
    started = [(e.index, e.content_block.type) for e in events if e.type == "content_block_start"]
    assert started == [(0, "thinking"), (1, "tool_use"), (2, "tool_use")]
    assert [e.index for e in events if e.type == "content_block_stop"] == [0, 1, 2]
    of_thinking = [e.delta.type for e in events if e.type == "content_block_delta" and e.index == 0]
    assert of_thinking[-1] == "signature_delta"
    assert events[-2].delta.stop_reason == "tool_use"
    assert events[-2].usage.output_tokens > 0


def test_a_system_prompt_and_every_kind_of_block_are_taken(claude: anthropic.Anthropic) -> None:
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": OSLO, "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I look it up.", "signature": "s"},
            {"type": "redacted_thinking", "data": "xx"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "toolu_2", "name": "get_time", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "none", "is_error": True},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Notes."}},
        ]},
        {"role": "system", "content": "Remember to be brief."},
        {"role": "user", "content": "say thanks"},
    ]  # fmt: skip
    system: Any = [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "Be kind."}]

    answer = claude.messages.create(model="script", max_tokens=60, system=system, messages=messages, tools=TOOLS)

    assert said(answer) == "thanks"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
@pytest.mark.parametrize("streamed", [True, False])
def test_the_built_in_model_calls_a_tool(claude: anthropic.Anthropic, choice: Any, streamed: bool) -> None:
    given: Any = {"model": "tiny", "max_tokens": 200, "messages": user(OSLO), "tools": [block()], "tool_choice": choice}
    if streamed:
        with claude.messages.stream(**given) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = claude.messages.create(**given)
    [call] = [b for b in answer.content if b.type == "tool_use"]

    assert (call.name, call.input["city"]) == ("get_weather", "Oslo")
    assert call.id.startswith("toolu_")
    assert answer.stop_reason == "tool_use"


def test_no_call_is_made_where_none_is_allowed(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="tiny",
        max_tokens=60,
        messages=user(OSLO),
        tools=TOOLS,
        tool_choice={"type": "none"},
        thinking={"type": "disabled"},
    )

    assert [b.type for b in answer.content] == ["text"]


def test_only_one_call_is_made_where_they_may_not_be_parallel(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="tiny", max_tokens=200, messages=user(OSLO), tools=TOOLS,
        tool_choice={"type": "any", "disable_parallel_tool_use": True}, thinking={"type": "disabled"},
    )  # fmt: skip

    assert [b.type for b in answer.content] == ["tool_use"]


@pytest.mark.parametrize("streamed", [True, False])
def test_the_built_in_model_thinks_with_a_signature(claude: anthropic.Anthropic, streamed: bool) -> None:
    given: Any = {"model": "tiny", "max_tokens": 1200, "messages": user(FRANCE), "thinking": THINKING}
    if streamed:
        with claude.messages.stream(**given) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = claude.messages.create(**given)
    thought, spoken = answer.content

    assert (thought.type, spoken.type) == ("thinking", "text")
    assert len(thought.thinking) > 10
    assert thought.signature
    assert "Paris" in spoken.text


def test_thinking_goes_back_into_the_next_request(claude: anthropic.Anthropic) -> None:
    first = claude.messages.create(model="script", max_tokens=60, messages=user("think hard\nsay one"))
    turns: Any = [*user("x"), {"role": "assistant", "content": first.content}, *user("say two")]

    assert said(claude.messages.create(model="script", max_tokens=60, messages=turns)) == "two"


@pytest.mark.parametrize("kind", ["adaptive", "disabled"])
def test_agents_send_their_thinking_to_every_model(claude: anthropic.Anthropic, kind: Any) -> None:
    answer = claude.messages.create(model="script", max_tokens=60, messages=user("say yes"), thinking={"type": kind})

    assert said(answer) == "yes"


def test_the_string_that_ended_the_answer_is_told(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="script", max_tokens=60, messages=user("count to 9"), stop_sequences=["never", "5"]
    )

    assert (answer.stop_reason, answer.stop_sequence, said(answer)) == ("stop_sequence", "5", "1 2 3 4 ")


def test_a_cut_answer_says_so(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="script", max_tokens=4, messages=user("count to 99"))

    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 4)


def test_the_built_in_model_fills_in_a_schema(claude: anthropic.Anthropic) -> None:

    form: Any = {"format": {"type": "json_schema", "schema": PERSON}}
    answer = claude.messages.create(model="tiny", max_tokens=120, messages=user(ADA), output_config=form)

    assert set(json.loads(said(answer))) == {"name", "age"}


def test_cached_tokens_are_not_counted_twice(claude: anthropic.Anthropic) -> None:
    """Input, cache read and cache creation add up to the prompt; agents show that sum as their context."""
    messages = user("This is a long enough beginning that it can be kept. " * 6 + FRANCE)
    count = claude.messages.count_tokens(model="tiny", messages=messages).input_tokens
    both = [claude.messages.create(model="tiny", max_tokens=4, messages=messages).usage for _ in range(2)]
    for used in both:
        parts = (used.input_tokens, used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0)
        assert sum(parts) == count
    assert both[1].cache_read_input_tokens


def test_tokens_are_counted_with_tools_and_system(claude: anthropic.Anthropic) -> None:
    bare = claude.messages.count_tokens(model="tiny", messages=user("Hello")).input_tokens
    system = claude.messages.count_tokens(model="tiny", messages=user("Hello"), system="You are kind. " * 5)
    tools = claude.messages.count_tokens(model="tiny", messages=user("Hello"), tools=TOOLS)

    assert 1 < bare < system.input_tokens
    assert bare < tools.input_tokens


def test_models_are_listed_in_their_own_form(claude: anthropic.Anthropic) -> None:
    page = claude.models.list(limit=100)

    assert {"tiny", "script"} <= {model.id for model in page}
    assert page.has_more is False
    one = claude.models.retrieve("tiny")
    assert (one.type, one.id) == ("model", "tiny")
    assert one.max_input_tokens


def test_a_bearer_token_and_beta_are_taken_too(url: str) -> None:
    with anthropic.Anthropic(base_url=url, auth_token="t", api_key=None, max_retries=0) as client:
        answer = client.beta.messages.create(
            model="script", max_tokens=20, messages=user("say yes"), betas=["interleaved-thinking-2025-05-14"]
        )
    assert said(answer) == "yes"


def test_an_agent_finds_the_server_before_it_speaks(http: httpx.Client) -> None:
    assert http.head("/").status_code == 200
