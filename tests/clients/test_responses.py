"""The Responses API as the openai package uses it, against a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tests.clients.client_helpers import ADA, FRANCE, OSLO, PERSON, calling, flat
from tests.official_clients import openai

TOOLS: Any = [flat(), flat("get_time", {"type": "object", "properties": {}})]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def stream_of(gpt: openai.OpenAI) -> Any:
    """The events of one streamed response, as plain values."""

    def ask(text: str, **more: Any) -> list[Any]:
        with gpt.responses.create(model="script", input=text, stream=True, **more) as stream:
            return list(stream)

    return ask


def test_a_response_holds_text_counts_and_all_that_was_asked(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(
        model="tiny", input=FRANCE, instructions="Be brief.", max_output_tokens=60, temperature=0, metadata={"a": "b"}
    )

    assert answer.id.startswith("resp_")
    assert answer.status == "completed"
    assert "Paris" in answer.output_text
    assert (answer.instructions, answer.max_output_tokens, answer.metadata) == ("Be brief.", 60, {"a": "b"})
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.cached_tokens >= 0


def test_the_strict_accumulator_of_the_client_takes_the_stream(gpt: openai.OpenAI) -> None:
    with gpt.responses.stream(model="script", input="think hard\nsay Done.", tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()

    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == "Done."
    assert [item.type for item in final.output] == ["reasoning", "message"]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("say one two three", "response.completed"),
        ("think of it\nsay yes", "response.completed"),
        (calling(("get_weather", {"city": "Oslo"}), ("get_time", {})), "response.completed"),
    ],
)
def test_every_event_is_numbered_and_belongs_to_an_item(stream_of: Any, text: str, last: str) -> None:
    events = stream_of(text, tools=TOOLS)

    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"]
    assert [e.type for e in events if e.type in ("response.completed", "response.incomplete")] == [last]
    opened: dict[int, str] = {}
    for event in events:
        if event.type == "response.output_item.added":
            assert event.output_index == len(opened)
            opened[event.output_index] = event.item.id
        elif event.type == "response.output_item.done":
            assert event.item.id == opened[event.output_index]
        elif hasattr(event, "item_id"):
            assert event.item_id == opened[event.output_index]
    final = events[-1].response
    assert [item.id for item in final.output] == list(opened.values())


def test_a_cut_response_is_incomplete_and_says_why(gpt: openai.OpenAI, stream_of: Any) -> None:
    whole = gpt.responses.create(model="script", input="count to 99", max_output_tokens=5)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"

    events = stream_of("count to 99", max_output_tokens=5)
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output[-1].status == "incomplete"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_the_built_in_model_calls_a_function(gpt: openai.OpenAI, choice: Any) -> None:
    answer = gpt.responses.create(model="tiny", input=OSLO, tools=[flat()], tool_choice=choice, max_output_tokens=200)
    [call] = [item for item in answer.output if item.type == "function_call"]

    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] == "Oslo"
    assert call.call_id


def test_streamed_arguments_come_in_pieces_that_make_up_the_whole(stream_of: Any) -> None:
    events = stream_of(calling(("get_weather", {"city": "Oslo", "days": 3}), ("get_time", {})), tools=TOOLS)

    pieces: dict[str, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            pieces[event.item_id] = pieces.get(event.item_id, "") + event.delta
    calls = [item for item in events[-1].response.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"city": "Oslo", "days": 3}, {}]
    assert [pieces[call.id] for call in calls] == [call.arguments for call in calls]
    assert len({call.call_id for call in calls}) == 2


def test_a_result_goes_back_with_the_id_of_its_call(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(
        model="tiny", input=OSLO, tools=[flat()], tool_choice="required", max_output_tokens=200
    )
    [call] = [item for item in first.output if item.type == "function_call"]
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "7 degrees"}]

    second = gpt.responses.create(
        model="tiny", input=result, previous_response_id=first.id, tools=[flat()], max_output_tokens=60
    )

    assert second.previous_response_id == first.id
    assert second.output


def test_kinds_of_tools_that_are_not_known_are_left_out(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "web_search"}, {"type": "custom", "name": "x"}, {"type": "namespace", "name": "n"}, flat()]

    answer = gpt.responses.create(model="script", input="say fine", tools=tools)

    assert answer.output_text == "fine"


def test_the_built_in_model_reasons_in_an_item_of_its_own(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(
        model="tiny", input=FRANCE, reasoning={"effort": "high"}, max_output_tokens=200,
        include=["reasoning.encrypted_content"],
    )  # fmt: skip

    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert "Paris" in answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_reasoning_goes_back_into_the_next_request(gpt: openai.OpenAI) -> None:
    first = gpt.responses.create(model="script", input="think hard\nsay one")
    items: Any = [{"role": "user", "content": "think hard"}, *first.output, {"role": "user", "content": "say two"}]

    assert gpt.responses.create(model="script", input=items).output_text == "two"


def test_parse_fills_in_a_schema(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.parse(model="tiny", input=ADA, text_format=Person, max_output_tokens=120)

    assert isinstance(answer.output_parsed, Person)


def test_a_schema_in_the_text_format_is_kept(gpt: openai.OpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}}
    answer = gpt.responses.create(model="tiny", input=ADA, text=form, max_output_tokens=120)

    assert set(json.loads(answer.output_text)) == {"name", "age"}


# Stored responses.


@pytest.fixture
def stored(gpt: openai.OpenAI) -> Any:
    return gpt.responses.create(model="script", input="say one")


def test_a_stored_response_is_found_continued_and_deleted(gpt: openai.OpenAI, stored: Any) -> None:
    assert gpt.responses.retrieve(stored.id).output_text == "one"
    items: list[Any] = list(gpt.responses.input_items.list(stored.id))
    assert items[0].content[0].text == "say one"

    gpt.responses.delete(stored.id)
    with pytest.raises(openai.NotFoundError, match=stored.id):
        gpt.responses.retrieve(stored.id)
    with pytest.raises(openai.NotFoundError, match=stored.id):
        gpt.responses.create(model="script", input="x", previous_response_id=stored.id)


def test_a_streamed_response_is_stored_too(gpt: openai.OpenAI, stream_of: Any) -> None:
    final = stream_of("say streamed")[-1].response

    assert gpt.responses.retrieve(final.id).output_text == "streamed"


def test_what_is_not_to_be_stored_is_not(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model="script", input="say one", store=False)

    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(answer.id)


def test_a_finished_response_can_be_cancelled_without_harm(gpt: openai.OpenAI, stored: Any) -> None:
    assert gpt.responses.cancel(stored.id).id == stored.id


def test_tokens_of_an_input_are_counted(gpt: openai.OpenAI) -> None:
    short = gpt.responses.input_tokens.count(model="tiny", input="Hello").input_tokens
    long = gpt.responses.input_tokens.count(model="tiny", input="Hello " * 20, tools=TOOLS).input_tokens

    assert 1 < short < long
