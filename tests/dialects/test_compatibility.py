"""Bugs of wire formats that users of other servers report often; each test shows that mullama does not have it."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import pytest

from mullama.chat.transcription import SoundFile
from mullama.chat.types import (
    Completed,
    Finished,
    ResponseFormat,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Timings,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
    Vectors,
)
from mullama.dialects import DIALECTS
from mullama.dialects.base import Endpoint, ReplyContext, WireRequest, model_of
from mullama.dialects.native import MANAGEMENT
from mullama.errors import ContextOverflow, Invalid
from mullama.struct import replace
from tests.dialects.wire import (
    CALL,
    CALL_EVENTS,
    CALLED,
    CONTEXT,
    DONE,
    HELLO,
    STARTED,
    STOPPED,
    WEATHER,
    data,
    decode,
    encode,
    endpoint,
    frames,
    reply,
    run_of,
    stream,
    strict_json,
)

CHATS = ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")


def chat_body(path: str, **more: Any) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": "tiny", "input": "Hello", **more}
    return {**HELLO, **({"max_tokens": 9} if path == "/v1/messages" else {}), **more}


def tool(path: str) -> dict[str, Any]:
    match path:
        case "/v1/messages":
            return {"name": "weather", "input_schema": WEATHER}
        case "/v1/responses":
            return {"type": "function", "name": "weather", "parameters": WEATHER}
        case _:
            return {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}


def test_an_openai_request_may_set_num_ctx_and_an_overflow_has_both_numbers() -> None:
    assert decode("/v1/chat/completions", {**HELLO, "num_ctx": 8192}).context_size == 8192
    assert decode("/v1/chat/completions", {**HELLO, "options": {"num_ctx": 4096}}).context_size == 4096
    assert decode("/v1/chat/completions", HELLO).truncate is False
    assert decode("/v1/messages", chat_body("/v1/messages")).truncate is False
    for dialect in DIALECTS.values():
        text = strict_json(dialect.error(ContextOverflow(5000, 4096), "r").body)
        assert "5000" in text
        assert "4096" in text


@pytest.mark.parametrize(
    ("path", "choice"),
    [
        ("/api/chat", {"type": "function", "function": {"name": "weather"}}),
        ("/v1/chat/completions", {"type": "function", "function": {"name": "weather"}}),
        ("/v1/responses", {"type": "function", "name": "weather"}),
        ("/v1/messages", {"type": "tool", "name": "weather"}),
    ],
)
def test_a_named_tool_choice_is_read_in_every_dialect(path: str, choice: Any) -> None:
    operation = decode(path, chat_body(path, tools=[tool(path)], tool_choice=choice))

    assert (operation.tool_choice.mode, operation.tool_choice.names) == ("required", ("weather",))
    with pytest.raises(Invalid, match="tool_choice"):
        decode(path, chat_body(path, tools=[tool(path)], tool_choice={**choice, "type": "odd"}))


def test_streamed_calls_are_indexed_arrive_in_pieces_and_end_with_tool_calls() -> None:
    second = (
        ToolCallStarted(index=1, id="call_b", name="weather"),
        ToolCallDelta(index=1, text="{}"),
        ToolCallFinished(index=1, call=CALL),
    )
    chunks = data("/v1/chat/completions", HELLO, run_of(*CALL_EVENTS, *second, end=CALLED))

    calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [c["index"] for c in calls] == [0, 0, 0, 1, 1]
    assert ["id" in c for c in calls] == [True, False, False, True, False]
    assert json.loads("".join(c["function"]["arguments"] for c in calls if c["index"] == 0)) == CALL.arguments
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("path", CHATS)
def test_the_schema_of_a_tool_is_unchanged(path: str) -> None:
    operation = decode(path, chat_body(path, tools=[tool(path)]))

    assert json.dumps(operation.tools[0].parameters) == json.dumps(WEATHER)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"format": WEATHER, "think": True}),
        ("/v1/chat/completions", {"response_format": {"type": "json_schema", "json_schema": {"schema": WEATHER}}}),
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "x", "schema": WEATHER}}}),
        ("/v1/messages", {"output_config": {"format": {"type": "json_schema", "schema": WEATHER}}}),
    ],
)
def test_a_format_is_kept_together_with_thinking_in_every_dialect(path: str, more: Any) -> None:
    operation = decode(path, chat_body(path, **more))

    assert operation.format == ResponseFormat(kind="json_schema", schema=WEATHER)
    assert operation.think in (True, None)


def test_an_unknown_format_is_refused() -> None:
    for form in ({"type": "yaml"}, {"type": "json_schema", "json_schema": {"name": "x"}}, "json"):
        with pytest.raises(Invalid, match="response_format"):
            decode("/v1/chat/completions", {**HELLO, "response_format": form})
    with pytest.raises(Invalid, match="format"):
        decode("/api/chat", {**HELLO, "format": "yaml"})


@pytest.mark.parametrize("path", CHATS)
def test_text_next_to_a_call_is_kept(path: str) -> None:
    events = run_of(TextDelta(text="Let me look."), *CALL_EVENTS, end=CALLED)

    whole = strict_json(reply(path, chat_body(path), events))
    streamed = strict_json(data(path, chat_body(path), events))

    for said in (whole, streamed):
        assert "Let me look." in said
        assert "weather" in said


def test_num_ctx_is_a_hint_and_load_options_are_not_applied() -> None:
    operation = decode("/api/chat", {**HELLO, "options": {"num_ctx": 2048, "num_gpu": 5}})

    assert operation.context_size == 2048
    assert operation.warnings == ("options.num_gpu was not applied: the manifest declares it",)


def test_a_vector_that_is_not_finite_is_an_error_that_names_its_input() -> None:
    result = Vectors(vectors=((0.5,), (float("nan"),)), usage=Usage())

    for path, body, place in (
        ("/v1/embeddings", {"model": "m", "input": ["a", "b"]}, r"input\[1\]"),
        ("/api/embed", {"model": "m", "input": ["a", "b"]}, r"input\[1\]"),
        ("/embedding", {"content": ["a", "b"]}, r"content\[1\]"),
    ):
        with pytest.raises(Invalid, match=f"the vector of {place} is not finite"):
            encode(endpoint(path), decode(path, body), result)
    old = replace(result, vectors=((float("inf"),),))
    with pytest.raises(Invalid, match="the vector of prompt is not finite"):
        encode(endpoint("/api/embeddings"), decode("/api/embeddings", {"model": "m", "prompt": "a"}), old)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding"])
@pytest.mark.parametrize("field", ["prompt_name", "input_type", "task"])
def test_a_request_names_the_prompt_before_its_texts(path: str, field: str) -> None:
    operation = decode(path, {"model": "m", "input": "a", field: "query"})
    assert (operation.prompt, operation.prompt_place) == ("query", field)
    assert decode(path, {"model": "m", "input": "a"}).prompt is None


@pytest.mark.parametrize(
    ("said", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [3]], ("a", (3,))),
    ],
)
def test_embeddings_take_all_forms_of_input(said: Any, inputs: Any) -> None:
    assert decode("/v1/embeddings", {"model": "m", "input": said}).inputs == inputs
    assert decode("/api/embed", {"model": "m", "input": said}).inputs == inputs


@pytest.mark.parametrize("path", CHATS)
def test_every_api_takes_keep_alive_and_has_no_default(path: str) -> None:
    assert decode(path, chat_body(path, keep_alive="1h")).keep_alive == 3600
    assert decode(path, chat_body(path)).keep_alive is None


@pytest.mark.parametrize("path", [*CHATS, "/v1/completions"])
def test_ids_contain_the_random_id(path: str) -> None:
    body = {"model": "m", "prompt": "x"} if path == "/v1/completions" else chat_body(path)
    first, second = (ids_of(path, body, context) for context in (CONTEXT, replace(CONTEXT, id="f" * 24, created=0.0)))

    assert first.isdisjoint(second)
    assert bool(first) == (path != "/api/chat")  # Ollama's answers have no id


def ids_of(path: str, body: Any, context: ReplyContext[Any, Any]) -> set[str]:
    """Everything in a stream that looks like an id of ours."""
    one = endpoint(path)
    assert one.stream is not None
    encoder = stream(one, one.decode(WireRequest(body={**body, "stream": True})), context)
    text = strict_json([f.data for e in run_of(TextDelta(text="a")) for f in encoder.feed(e)])
    return {word for word in text.replace('"', " ").split() if "_0123" in word or "-0123" in word or "ffff" in word}


def test_an_image_by_http_address_is_accepted_and_other_schemes_are_not() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    operation = decode("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert operation.messages[0].content[0].url == "https://example.org/a.png"

    for odd in ("file:///etc/passwd", "file://host/a.png", "ftp://example.org/a.png", "http:///a.png"):
        parts = [{"type": "image_url", "image_url": {"url": odd}}]
        with pytest.raises(Invalid, match=r"image_url\.url"):
            decode("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": parts}]})


def test_the_newer_spelling_of_the_limit_wins() -> None:
    assert decode("/v1/chat/completions", {**HELLO, "max_tokens": 5, "max_completion_tokens": 7}).max_tokens == 7
    assert decode("/v1/chat/completions", {**HELLO, "max_tokens": 5}).max_tokens == 5
    assert decode("/v1/chat/completions", HELLO).max_tokens is None


def test_the_responses_stream_is_numbered_indexed_and_ends_with_the_complete_object() -> None:
    events = run_of(TextDelta(text="a"), *CALL_EVENTS, TextDelta(text="after"), end=Finished(reason=StopReason.LENGTH))
    sent = data("/v1/responses", chat_body("/v1/responses"), events)

    assert [e["sequence_number"] for e in sent] == list(range(len(sent)))
    added = [e for e in sent if e["type"] == "response.output_item.added"]
    assert [e["output_index"] for e in added] == [0, 1, 2]
    for event in sent:
        if "content_part" in event["type"] or "output_text" in event["type"]:
            assert event["content_index"] == 0
            assert isinstance(event["item_id"], str)
    last = sent[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "completed", "incomplete"]
    assert last["response"]["output"][2]["content"][0]["text"] == "after"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/responses"])
def test_developer_and_late_system_messages_keep_their_position(path: str) -> None:
    turns = [
        {"role": "developer", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "system", "content": "three"},
    ]
    name = "input" if path == "/v1/responses" else "messages"

    operation = decode(path, {"model": "m", name: turns})

    assert [(m.role, m.text) for m in operation.messages] == [("system", "one"), ("user", "two"), ("system", "three")]


def test_a_system_message_in_the_middle_keeps_its_position_for_anthropic() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}]

    operation = decode("/v1/messages", {"model": "m", "max_tokens": 5, "messages": turns})

    assert [m.role for m in operation.messages] == ["user", "system", "user"]


def test_the_billing_block_is_a_separate_part() -> None:
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=ab12;"},
        {"type": "text", "text": "You are kind.", "cache_control": {"type": "ephemeral"}},
    ]

    operation = decode("/v1/messages", {**HELLO, "max_tokens": 5, "system": system})

    assert [part.text for part in operation.messages[0].content][1] == "You are kind."


@pytest.mark.parametrize(
    ("path", "more", "budget"),
    [
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, 2048),
        ("/v1/messages", {"thinking": {"type": "enabled"}}, None),
        ("/v1/chat/completions", {"reasoning_budget_tokens": 64}, 64),
        ("/v1/chat/completions", {"thinking_budget_tokens": 0}, 0),
        ("/v1/chat/completions", {"thinking_budget_tokens": -1}, -1),
        ("/v1/chat/completions", {}, None),
    ],
)
def test_the_bound_of_thinking(path: str, more: Any, budget: int | None) -> None:
    operation = decode(path, chat_body(path, **more))
    assert operation.think_budget == budget
    assert operation.warnings == ()


@pytest.mark.parametrize(
    ("path", "more", "think"),
    [
        ("/api/chat", {"think": "high"}, "high"),
        ("/api/chat", {"think": False}, False),
        ("/v1/chat/completions", {"reasoning_effort": "none"}, False),
        ("/v1/chat/completions", {"reasoning": {"effort": "minimal"}}, "low"),
        ("/v1/chat/completions", {"think": True}, True),
        ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": False}}, False),
        ("/v1/responses", {"reasoning": {"effort": "xhigh"}}, "max"),
        ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, True),
        ("/v1/messages", {"thinking": {"type": "disabled"}}, False),
        ("/v1/messages", {"thinking": {"type": "adaptive"}}, None),
        ("/v1/messages", {"output_config": {"effort": "medium"}}, "medium"),
    ],
)
def test_every_dialect_sets_the_level_of_thinking(path: str, more: Any, think: Any) -> None:
    operation = decode(path, chat_body(path, **more))

    assert operation.think == think
    assert operation.think_optional == (path != "/api/chat")


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"think": "hard"}),
        ("/v1/chat/completions", {"reasoning_effort": "hard"}),
        ("/v1/responses", {"reasoning": {"effort": "hard"}}),
        ("/v1/messages", {"thinking": {"type": "hard"}}),
        ("/v1/messages", {"output_config": {"effort": "hard"}}),
    ],
)
def test_an_unknown_level_of_thinking_is_refused(path: str, more: Any) -> None:
    with pytest.raises(Invalid):
        decode(path, chat_body(path, **more))


def test_the_finish_reason_is_null_until_the_last_chunk() -> None:
    for reason, word in (
        (StopReason.STOP, "stop"),
        (StopReason.STOP_SEQUENCE, "stop"),
        (StopReason.LENGTH, "length"),
        (StopReason.TOOL_CALLS, "tool_calls"),
        (StopReason.CANCELLED, "length"),
    ):
        events = run_of(ThinkingDelta(text="h"), TextDelta(text="a"), end=Finished(reason=reason))
        reasons = [c["choices"][0]["finish_reason"] for c in data("/v1/chat/completions", HELLO, events)]
        assert reasons == [None, None, None, word]


def test_reasoning_is_written_under_both_names_and_read_under_any() -> None:
    message = reply("/v1/chat/completions", HELLO, run_of(ThinkingDelta(text="hm"), TextDelta(text="ok")))
    said = message["choices"][0]["message"]
    assert (said["reasoning"], said["reasoning_content"], said["content"]) == ("hm", "hm", "ok")

    for name in ("reasoning", "reasoning_content", "thinking"):
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", name: "hm"}]
        assert decode("/v1/chat/completions", {"model": "m", "messages": turns}).messages[1].thinking == "hm"


# Rules that the same survey gives, beside the numbered bugs.


def test_the_name_that_the_client_sent_is_the_name_that_it_gets_back() -> None:
    for path in CHATS:
        body = {**chat_body(path), "model": "Route/To:It"}
        events = run_of(TextDelta(text="a"))
        assert "Route/To:It" in strict_json(reply(path, body, events))
        assert "Route/To:It" in strict_json(data(path, body, events)[0])


def test_counts_are_there_also_when_they_are_zero_or_cached() -> None:
    nothing = Completed(usage=Usage(prompt_tokens=5, cached_tokens=5), timings=Timings())
    events = (STARTED, STOPPED, nothing)

    ollama = reply("/api/chat", HELLO, events)
    assert (ollama["prompt_eval_count"], ollama["eval_count"], ollama["eval_duration"]) == (5, 0, 0)
    assert reply("/v1/chat/completions", HELLO, events)["usage"]["completion_tokens"] == 0
    anthropic = reply("/v1/messages", chat_body("/v1/messages"), events)["usage"]
    assert (anthropic["input_tokens"], anthropic["cache_read_input_tokens"], anthropic["output_tokens"]) == (0, 5, 0)


@pytest.mark.parametrize("path", [*CHATS, "/api/generate", "/v1/completions", "/v1/embeddings", "/api/embed"])
def test_unknown_fields_never_fail(path: str) -> None:
    prompt = {} if path == "/v1/responses" else {"prompt": "a"}
    body = {"messages": HELLO["messages"], "input": "a", "max_tokens": 5, "model": "m", **prompt}

    assert decode(path, {**body, "new_in_2027": {"a": [1]}, "x": None}).model == "m"


def test_base64_vectors_are_little_endian_floats() -> None:
    one = endpoint("/v1/embeddings")
    operation = decode("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "base64"})
    said: Any = encode(one, operation, Vectors(vectors=((0.5, -2.0),), usage=Usage())).body

    assert struct.unpack("<2f", b64decode(said["data"][0]["embedding"])) == (0.5, -2.0)


def test_a_real_prompt_never_answers_load() -> None:
    for prompt in (" ", "\n", "0"):
        assert decode("/api/generate", {"model": "m", "prompt": prompt}).prompts == (prompt,)
    assert reply("/api/generate", {"model": "m", "prompt": " "}, run_of())["done_reason"] == "stop"


def test_the_stream_of_chat_begins_with_the_role_and_ends_with_done() -> None:
    sent = frames("/v1/chat/completions", HELLO, run_of(TextDelta(text="a")))

    first: Any = sent[0].data
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sent[-1].data == "[DONE]"


def test_usage_comes_after_the_end_and_is_null_before() -> None:
    body = {**HELLO, "stream_options": {"include_usage": True}}
    chunks = data("/v1/chat/completions", body, (STARTED, TextDelta(text="a"), STOPPED, DONE))

    assert [chunk["usage"] is None for chunk in chunks] == [True, True, True, False]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 18


@pytest.mark.parametrize("named", [{}, {"model": None}, {"model": ""}], ids=str)
def test_an_endpoint_that_takes_a_model_leaves_an_absent_name_to_the_default(named: dict[str, Any]) -> None:
    body = {
        "messages": HELLO["messages"], "input": "a", "content": "a", "max_tokens": 5, "query": "q", "documents": ["a"],
        "tokens": [1], "input_prefix": "a", "input_suffix": "a", **named,
    }  # fmt: skip
    taking = [
        one
        for dialect in (*DIALECTS.values(), MANAGEMENT)
        for one in dialect.endpoints
        if one.access == "infer" and "model" in (one.request_schema or {}).get("properties", {})  # type: ignore[union-attr]
    ]
    forms: Any = {"body": named, "files": {"file": SoundFile(file=None, size=1, head=b"")}}

    def asked(one: Endpoint) -> Any:
        required = {"prompt": "a"} if one.path in ("/completion", "/completions") else {}
        return forms if one.form else {"body": body | required}

    found = {one.path: model_of(one.decode(WireRequest(**asked(one)))) for one in taking}

    assert len(found) > 25
    assert set(found.values()) == {""}
    assert all("model" not in one.request_schema.get("required", ()) for one in taking)  # type: ignore[union-attr]
