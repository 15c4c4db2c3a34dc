"""The openai package against a real server: chat, completions, embeddings, models."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from base64 import b64decode
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from tests.clients.client_helpers import ADA, FRANCE, OSLO, PERSON, WEATHER, calling, function, user
from tests.official_clients import openai

TOOLS: Any = [function(), function("get_time", {"type": "object", "properties": {}})]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ALLOWED: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


def calls_of(answer: Any) -> list[Any]:
    """The calls in an answer's only choice."""
    return answer.choices[0].message.tool_calls or []


class Person(BaseModel):
    name: str
    age: int


# Plain answers.


def test_an_answer_has_everything_that_typed_clients_require(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(model="tiny", messages=user(FRANCE), max_tokens=60)

    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert answer.id.startswith("chatcmpl-")
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 2
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_a_streamed_answer_is_the_whole_one(gpt: openai.OpenAI) -> None:
    whole = gpt.chat.completions.create(model="tiny", messages=user(FRANCE), max_tokens=60)
    with gpt.chat.completions.create(
        model="tiny", messages=user(FRANCE), max_tokens=60, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)

    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_accumulator_of_the_client_takes_the_stream(gpt: openai.OpenAI) -> None:
    with gpt.chat.completions.stream(model="script", messages=user(FRANCE)) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert kinds[-1] == "content.done"
    assert final.choices[0].message.content == "Paris."


@pytest.mark.anyio
async def test_an_async_client_streams_many_answers_at_once(url: str) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(model="script", messages=user(f"count to {number}"), stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(*(one(client, n) for n in range(1, 13)))

    assert answers == [" ".join(map(str, range(1, n + 1))) for n in range(1, 13)]


def test_a_route_answers_by_the_name_that_was_asked_for(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(model="gpt-4o-mini", messages=user(FRANCE))

    assert (answer.model, answer.choices[0].message.content) == ("gpt-4o-mini", "Paris.")


def test_roles_and_parts_of_all_kinds_are_taken(gpt: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": "It rains.", "reasoning_content": "hm"},
        {"role": "user", "content": [{"type": "text", "text": "say thanks"}, {"type": "text", "text": "for all"}]},
    ]  # fmt: skip
    answer = gpt.chat.completions.create(model="script", messages=messages, tools=TOOLS)

    assert answer.choices[0].message.content == "thanks\nfor all"


def test_fields_that_mean_nothing_here_do_no_harm(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="script", messages=user("say yes"), store=True, metadata={"a": "b"}, service_tier="auto", user="u",
        safety_identifier="s", prompt_cache_key="p", verbosity="low", extra_body={"new_in_2027": {"a": [1]}},
    )  # fmt: skip

    assert answer.choices[0].message.content == "yes"


# Tools.


@pytest.mark.parametrize("choice", ["required", NAMED, ALLOWED])
def test_a_call_that_is_required_is_made(gpt: openai.OpenAI, choice: Any) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), tools=TOOLS, tool_choice=choice, max_tokens=200
    )
    [call] = calls_of(answer)

    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert call.type == "function"
    if choice != "required":
        assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)


def test_the_built_in_model_calls_a_tool_when_it_is_asked_to(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), tools=[function()], tool_choice="required", max_tokens=200
    )
    [call] = calls_of(answer)

    assert call.type == "function"
    assert json.loads(call.function.arguments)["city"] == "Oslo"


def test_no_call_is_made_where_none_is_allowed(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), tools=TOOLS, tool_choice="none", max_tokens=60
    )

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_parallel_calls_are_streamed_in_pieces_each_with_its_index(gpt: openai.OpenAI) -> None:
    asked = calling(("get_weather", {"city": "Oslo"}), ("get_time", {}), ("get_weather", {"city": "Ulm"}))
    with gpt.chat.completions.create(model="script", messages=user(asked), tools=TOOLS, stream=True) as stream:
        chunks = [c.choices[0] for c in stream if c.choices]

    deltas = [d for c in chunks for d in c.delta.tool_calls or ()]
    named = [d for d in deltas if d.id]
    assert [(d.index, d.function.name) for d in named if d.function] == [
        (0, "get_weather"), (1, "get_time"), (2, "get_weather"),
    ]  # fmt: skip
    assert len({d.id for d in named}) == 3
    pieces = [[d.function.arguments or "" for d in deltas if d.index == i and d.function] for i in range(3)]
    assert [json.loads("".join(p)) for p in pieces] == [{"city": "Oslo"}, {}, {"city": "Ulm"}]
    assert len(pieces[0]) > 2
    assert chunks[-1].finish_reason == "tool_calls"


def test_the_accumulator_puts_streamed_calls_together(gpt: openai.OpenAI) -> None:
    asked = calling(("get_weather", {"city": "Oslo"}), ("get_time", {}))
    with gpt.chat.completions.stream(model="script", messages=user(asked), tools=TOOLS) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final: Any = stream.get_final_completion().choices[0]

    assert [(event.index, event.name) for event in done] == [(0, "get_weather"), (1, "get_time")]
    assert [json.loads(call.function.arguments) for call in final.message.tool_calls or ()] == [{"city": "Oslo"}, {}]


def test_only_one_call_is_made_where_they_may_not_be_parallel(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
        max_tokens=200,
    )  # fmt: skip

    assert len(answer.choices[0].message.tool_calls or ()) == 1


def test_a_tool_result_is_answered(gpt: openai.OpenAI) -> None:
    first: Any = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), tools=[function()], tool_choice="required", max_tokens=200
    ).choices[0].message  # fmt: skip
    [call] = first.tool_calls
    turns: Any = [*user(OSLO), first, {"role": "tool", "tool_call_id": call.id, "content": "7 degrees and rain"}]

    second = gpt.chat.completions.create(model="tiny", messages=turns, tools=[function()], max_tokens=60)

    assert second.choices[0].message.content or second.choices[0].message.tool_calls


def test_old_clients_still_call_functions(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(OSLO), functions=[{"name": "get_weather", "parameters": WEATHER}],
        function_call={"name": "get_weather"}, max_tokens=200,
    )  # fmt: skip
    said = answer.choices[0]

    assert said.finish_reason == "function_call"
    assert said.message.function_call is not None
    assert "city" in json.loads(said.message.function_call.arguments)


# Thinking.


def test_the_built_in_model_thinks_when_it_is_asked_to(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(FRANCE), reasoning_effort="high", max_completion_tokens=200
    )
    message: Any = answer.choices[0].message

    assert len(message.reasoning_content) > 10
    assert message.reasoning == message.reasoning_content
    assert "Paris" in message.content
    assert "think>" not in message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens


def test_thinking_is_streamed_before_the_text_and_apart_from_it(gpt: openai.OpenAI) -> None:
    asked = user("think about it\nsay The answer.")
    with gpt.chat.completions.create(model="script", messages=asked, stream=True) as stream:
        deltas: list[Any] = [c.choices[0].delta for c in stream if c.choices]

    thought = [i for i, d in enumerate(deltas) if getattr(d, "reasoning_content", None)]
    spoken = [i for i, d in enumerate(deltas) if d.content]
    assert "".join(deltas[i].reasoning_content for i in thought) == "about it"
    assert "".join(deltas[i].content for i in spoken) == "The answer."
    assert max(thought) < min(spoken)


# Formats.


def test_a_schema_that_no_text_fits_names_the_field_it_came_from(gpt: openai.OpenAI) -> None:
    number = {"type": "string", "pattern": "^[0-9]{3}$", "minLength": 9}
    requests: list[tuple[str, Any]] = [
        (
            "response_format",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": number}}},
        ),
        ("tools", {"tools": [function("f", {"type": "object", "properties": {"p": number}, "required": ["p"]})]}),
    ]
    for field, rest in requests:
        with pytest.raises(openai.BadRequestError, match="no value fits the schema with pattern, minLength") as caught:
            gpt.chat.completions.create(model="tiny", messages=user(FRANCE), max_tokens=5, **rest)
        assert caught.value.param == field


def test_the_built_in_model_fills_in_a_schema(gpt: openai.OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    answer = gpt.chat.completions.create(model="tiny", messages=user(ADA), response_format=schema, max_tokens=120)
    said = json.loads(answer.choices[0].message.content or "")

    assert set(said) == {"name", "age"}
    assert isinstance(said["age"], int)


def test_a_schema_is_kept_after_thinking(gpt: openai.OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(ADA), response_format=schema, reasoning_effort="high", max_tokens=300
    )
    message: Any = answer.choices[0].message

    assert message.reasoning_content
    assert set(json.loads(message.content)) == {"name", "age"}


def test_an_object_is_written_where_one_is_asked_for(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny", messages=user(ADA), response_format={"type": "json_object"}, max_tokens=200
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_parse_reads_what_was_written(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.parse(model="tiny", messages=user(ADA), response_format=Person, max_tokens=120)

    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parse_is_told_when_the_answer_was_cut(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        gpt.chat.completions.parse(model="tiny", messages=user(ADA), response_format=Person, max_tokens=2)


def test_parse_reads_the_arguments_of_a_strict_tool(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.parse(
        model="tiny", messages=user(OSLO), max_tokens=200, tool_choice="required",
        tools=[openai.pydantic_function_tool(Person, name="person")],
    )  # fmt: skip
    [call] = calls_of(answer)

    assert isinstance(call.function.parsed_arguments, Person)


# What else can be asked for.


NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


def test_logprobs_of_every_token_with_as_many_alternatives_as_asked(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="tiny",
        messages=user(FRANCE),
        logprobs=True,
        top_logprobs=3,
        max_tokens=6,
        extra_body=NO_THINKING,
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert answer.usage is not None

    assert len(found.content) == answer.usage.completion_tokens == 6
    assert "".join(one.token for one in found.content) == answer.choices[0].message.content
    for one in found.content:
        assert one.logprob <= 0
        assert len(one.top_logprobs) == 3
        assert bytes(one.bytes or ()).decode() == one.token


def test_choices_differ_and_a_seed_repeats_them(gpt: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str | None]:
        answer = gpt.chat.completions.create(
            model="single",
            messages=user("Tell me a story."),
            n=3,
            seed=seed,
            temperature=1.5,
            max_tokens=12,
            extra_body={"cache_prompt": False, **NO_THINKING},  # with a cached prompt its batch has another shape
        )
        assert [c.index for c in answer.choices] == [0, 1, 2]
        return [c.message.content for c in answer.choices]

    assert ask(7) == ask(7)
    assert len(set(ask(7))) > 1


def test_choices_are_streamed_side_by_side(gpt: openai.OpenAI) -> None:
    texts, ends = ["", ""], [0, 0]
    with gpt.chat.completions.create(model="script", messages=user("count to 5"), n=2, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends[choice.index] += choice.finish_reason is not None

    assert texts == ["1 2 3 4 5"] * 2
    assert ends == [1, 1]


@pytest.mark.parametrize("stop", ["5", ["never", "5"]])
def test_a_stop_string_ends_the_answer_before_it(gpt: openai.OpenAI, stop: Any) -> None:
    answer = gpt.chat.completions.create(model="script", messages=user("count to 9"), stop=stop)

    assert answer.choices[0].message.content == "1 2 3 4 "
    assert answer.choices[0].finish_reason == "stop"


def test_either_limit_cuts_the_answer_and_the_newer_one_wins(gpt: openai.OpenAI) -> None:
    for limits in ({"max_tokens": 3}, {"max_completion_tokens": 3}, {"max_tokens": 50, "max_completion_tokens": 3}):
        answer = gpt.chat.completions.create(model="script", messages=user("count to 99"), **limits)  # type: ignore[call-overload]
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_a_bias_forbids_a_token(gpt: openai.OpenAI) -> None:
    free = gpt.chat.completions.create(
        model="tiny",
        messages=user(FRANCE),
        max_tokens=1,
        logprobs=True,
        top_logprobs=1,
        temperature=0,
        extra_body=NO_THINKING,
    )
    logprobs = free.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    first = logprobs.content[0].token
    [token] = gpt.post("/../tokenize", body={"model": "tiny", "content": first}, cast_to=httpx.Response).json()[
        "tokens"
    ]

    bound = gpt.chat.completions.create(
        model="tiny",
        messages=user(FRANCE),
        max_tokens=1,
        logit_bias={str(token): -100},
        temperature=0,
        extra_body=NO_THINKING,
    )

    assert bound.choices[0].message.content != first


# Completions.


@pytest.mark.parametrize(("prompt", "count"), [("count to 3", 1), (["count to 2", "count to 3"], 2)])
def test_completions_take_one_prompt_or_several(gpt: openai.OpenAI, prompt: Any, count: int) -> None:
    answer = gpt.completions.create(model="script", prompt=prompt)

    assert [c.index for c in answer.choices] == list(range(count))
    assert [c.text for c in answer.choices][-1] == "1 2 3"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 3 * count


def test_completions_take_prompts_of_tokens(gpt: openai.OpenAI, http: httpx.Client) -> None:
    def tokens(text: str) -> Any:
        return http.post("/tokenize", json={"model": "tiny", "content": text, "add_special": True}).json()["tokens"]

    one, two = tokens("The cat"), tokens("The dog sat")
    answer = gpt.completions.create(model="tiny", prompt=[one, two], echo=True, max_tokens=1, logprobs=1)

    assert answer.choices[0].text.startswith("The cat")
    assert answer.choices[1].text.startswith("The dog sat")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(one) + len(two)
    assert len(gpt.completions.create(model="tiny", prompt=one, max_tokens=1).choices) == 1


def test_an_echoed_prompt_has_logprobs_but_for_its_first_token(gpt: openai.OpenAI) -> None:
    """What lm-eval reads to score a text."""
    answer = gpt.completions.create(
        model="tiny", prompt="The capital of France is", echo=True, logprobs=1, max_tokens=1
    )
    found: Any = answer.choices[0].logprobs

    assert answer.choices[0].text.startswith("The capital of France is")
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    assert all(p is not None and math.isfinite(p) and p <= 0 for p in found.token_logprobs[1:])
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]


def test_tokens_that_are_parts_of_characters_form_the_text(gpt: openai.OpenAI) -> None:
    """The vocabulary has no token for the face, so its bytes are tokens."""
    prompt = "a \U0001fae0 b"
    answer = gpt.completions.create(model="tiny", prompt=prompt, echo=True, logprobs=1, max_tokens=2)
    found: Any = answer.choices[0].logprobs

    assert answer.choices[0].text.startswith(prompt)
    assert "" in found.tokens
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.text_offset == [len("".join(found.tokens[:i])) for i in range(len(found.tokens))]
    ids = [12, 34, 56]
    echoed = gpt.completions.create(model="tiny", prompt=ids, echo=True, max_tokens=0).choices[0].text
    with gpt.completions.create(model="tiny", prompt=ids, logprobs=1, max_tokens=2, stream=True) as stream:
        offsets = [c.choices[0].logprobs.text_offset for c in stream if c.choices and c.choices[0].logprobs]
    assert offsets[0][0] == len(echoed)  # type: ignore[index]


def test_completions_stream_and_fill_in(gpt: openai.OpenAI) -> None:
    with gpt.completions.create(model="script", prompt="count to 4", stream=True) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks) == "1 2 3 4"
    assert chunks[-1].choices[0].finish_reason == "stop"

    filled = gpt.completions.create(model="tiny", prompt="def add(a, b):\n", suffix="\n    return c\n", max_tokens=16)
    assert filled.choices[0].finish_reason in ("stop", "length")
    assert "<|fim" not in filled.choices[0].text


# Embeddings.


@pytest.mark.parametrize(
    ("said", "count"),
    [("one", 1), (["one", "two"], 2), ([1, 2, 3], 1), ([[1, 2, 3], [4, 5]], 2)],
)
def test_embeddings_take_every_form_of_input(gpt: openai.OpenAI, said: Any, count: int) -> None:
    answer = gpt.embeddings.create(model="tiny", input=said)

    assert [one.index for one in answer.data] == list(range(count))
    for one in answer.data:
        assert sum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-4)
    assert answer.usage.prompt_tokens > 0


def test_base64_holds_the_same_floats(gpt: openai.OpenAI) -> None:
    plain = gpt.embeddings.create(model="tiny", input="one", encoding_format="float").data[0].embedding
    coded: Any = gpt.embeddings.create(model="tiny", input="one", encoding_format="base64").data[0].embedding

    assert struct.unpack(f"<{len(plain)}f", b64decode(coded)) == pytest.approx(plain, abs=1e-6)


def test_fewer_dimensions_are_cut_and_of_length_one_again(gpt: openai.OpenAI) -> None:
    vector = gpt.embeddings.create(model="tiny", input="one", dimensions=16).data[0].embedding

    assert len(vector) == 16
    assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-4)


# Models.


def test_models_are_listed_and_found_with_their_context(gpt: openai.OpenAI) -> None:
    listed = {model.id: model for model in gpt.models.list()}

    assert {"tiny", "script", "gpt-4o-mini"} <= set(listed)
    one: Any = gpt.models.retrieve("tiny")
    assert one.object == "model"
    assert one.context_length > 0
    with pytest.raises(openai.NotFoundError, match="org/none"):
        gpt.models.retrieve("org/none:latest")


def test_the_client_reads_headers_of_raw_answers(gpt: openai.OpenAI) -> None:
    raw = gpt.chat.completions.with_raw_response.create(model="script", messages=user("say yes"))

    assert raw.headers["x-request-id"].startswith("req_")
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.headers["content-type"] == "application/json"
