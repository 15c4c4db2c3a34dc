"""The Responses API: items become turns, responses are stored and taken up again."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.answer import fold
from mullama.chat.inventory import Done
from mullama.chat.types import (
    Effective,
    Sampling,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallFinished,
    ToolCallStarted,
)
from mullama.dialects.base import WireRequest
from mullama.dialects.openai.responses.items import conversation
from mullama.dialects.reply_values import encode_text
from mullama.dialects.stored_objects import ReplayStream, StoredObject
from mullama.errors import Invalid
from mullama.struct import replace
from tests.dialects.wire import (
    CALL_EVENTS,
    CALLED,
    CONTEXT,
    DONE,
    HELLO,
    STOPPED,
    data,
    decode,
    encode,
    endpoint,
    reply,
    run_of,
    stream,
)

PATH = "/v1/responses"
ASK = {"model": "tiny", "input": "Hello"}


def turns(*items: Any) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in conversation(items, None)]


def test_items_of_one_answer_become_one_turn() -> None:
    items = (
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "message", "role": "assistant", "content": "c"},
        {"type": "message", "role": "assistant", "content": "d"},
    )

    told_turns = conversation(items, "Be brief.")

    assert [(m.role, m.text) for m in told_turns] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("tool", "two"),
        ("tool", "one"),
        ("assistant", "c"),
        ("assistant", "d"),
    ]
    assert told_turns[2].thinking == "hm"
    assert [(c.id, c.name, c.arguments) for c in told_turns[2].tool_calls] == [("c1", "f", {"x": 1}), ("c2", "g", {})]
    assert [m.tool_name for m in told_turns if m.role == "tool"] == ["g", "f"]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "telepathy"}, r"input\[0\]\.type"),
        ({"role": "robot", "content": "x"}, r"input\[0\]\.role"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "call_id is required"),
        ({"type": "item_reference", "id": "msg_of_another_server"}, "there is no item"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}, "files are not stored"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "files are not stored"),
        ("text", r"input\[0\] must be an object"),
    ],
)
def test_items_that_cannot_be_are_refused_by_name(item: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode(PATH, {"model": "m", "input": [item]})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"input": None}, "input is required"),
        ({"input": ""}, "input is required"),
        ({"input": [{"type": "web_search_call"}]}, "nothing to answer"),
        ({"conversation": "conv_1"}, "conversation is not supported"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"truncation": "middle"}, "truncation"),
        ({"text": {"format": {"type": "xml"}}}, r"text\.format\.type"),
        ({"reasoning": {"summary": "long"}}, r"reasoning\.summary"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\]\.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(more: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode(PATH, {**ASK, **more})


def test_tools_of_other_kinds_are_left_out_with_a_warning() -> None:
    operation = decode(
        PATH, {**ASK, "tools": [{"type": "file_search"}, {"type": "shell"}, {"type": "function", "name": "f"}]}
    )

    assert [tool.name for tool in operation.tools] == ["f"]
    assert len(operation.warnings) == 2


def test_thinking_survives_the_round_trip_hidden_or_in_the_clear() -> None:
    body = {**ASK, "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    output = reply(PATH, body, run_of(ThinkingDelta(text="hm ü"), TextDelta(text="ok")))["output"]

    assert output[0]["summary"] == [{"type": "summary_text", "text": "hm ü"}]
    hidden = {"type": "reasoning", "summary": [], "encrypted_content": output[0]["encrypted_content"]}
    assert conversation((hidden, output[1]), None)[0].thinking == "hm ü"
    assert conversation((output[0], output[1]), None)[0].thinking == "hm ü"
    for foreign in ("gAAAAABo", encode_text("x")[:-1] + "!", "mullama1.////"):
        strange = {"type": "reasoning", "summary": [], "encrypted_content": foreign}
        assert turns(strange, {"role": "user", "content": "a"}) == [("user", "a")]


def stored(store: bool = True) -> StoredObject | None:
    one = endpoint(PATH)
    assert one.remember is not None
    operation = decode(PATH, {**ASK, "instructions": "Be brief.", "store": store})
    return one.remember(operation, reply(PATH, {**ASK, "store": store}, run_of(TextDelta(text="Hi."))))


def test_a_response_is_remembered_whole_or_streamed_unless_it_must_not_be() -> None:
    one = endpoint(PATH)
    assert one.remember is not None
    operation = decode(PATH, ASK)
    events = run_of(TextDelta(text="Hi."))

    whole = one.remember(operation, reply(PATH, ASK, events))
    encoder = stream(one, operation)
    for event in events:
        tuple(encoder.feed(event))
    streamed = one.remember(operation, encoder.whole)

    assert whole == streamed
    assert whole is not None
    assert whole.id == f"resp_{CONTEXT.id}"
    assert stored(store=False) is None
    failed = {"id": "resp_1", "status": "failed"}
    assert one.remember(operation, failed) is None
    behind = one.remember(decode(PATH, {**ASK, "background": True}), failed)
    assert behind is not None
    assert behind.body == failed


def test_a_response_is_taken_up_again_without_its_instructions() -> None:
    one = endpoint(PATH)
    assert one.resume is not None
    before = stored()
    assert before is not None

    operation: Any = decode(PATH, {"model": "tiny", "input": "And?", "previous_response_id": before.id})
    assert operation.needs == (before.id,)
    assert operation.messages == ()
    whole: Any = one.resume(operation, {before.id: before})

    assert [(m.role, m.text) for m in whole.messages] == [("user", "Hello"), ("assistant", "Hi."), ("user", "And?")]
    assert whole.needs == ()
    said = reply_of(whole)
    assert said["previous_response_id"] == before.id


def reply_of(operation: Any) -> Any:
    return encode(endpoint(PATH), operation, fold(run_of(TextDelta(text="x")))).body


def test_a_chain_of_three_keeps_everything_even_when_the_first_is_forgotten() -> None:
    one = endpoint(PATH)
    assert one.resume is not None
    assert one.remember is not None
    first = stored()
    assert first is not None
    second_request: Any = one.resume(
        decode(PATH, {"model": "tiny", "input": "And?", "previous_response_id": first.id}), {first.id: first}
    )
    second = one.remember(second_request, {**reply_of(second_request), "id": "resp_2"})
    assert second is not None

    third: Any = one.resume(
        decode(PATH, {"model": "tiny", "input": "So?", "previous_response_id": "resp_2"}), {"resp_2": second}
    )

    assert [m.text for m in third.messages] == ["Hello", "Hi.", "And?", "x", "So?"]


def test_a_reference_to_an_item_that_is_not_there_is_refused() -> None:
    one = endpoint(PATH)
    assert one.resume is not None
    before = stored()
    assert before is not None
    item = {"type": "item_reference", "id": f"msg_{CONTEXT.id}_f"}
    operation: Any = decode(PATH, {"model": "tiny", "input": [item, {"role": "user", "content": "a"}]})

    assert operation.needs == (before.id,)
    with pytest.raises(Invalid, match=r"input\[0\]\.id"):
        one.resume(operation, {before.id: before})


def test_a_count_covers_the_stored_responses_before() -> None:
    one = endpoint("/v1/responses/input_tokens")
    before = stored()
    assert before is not None
    assert one.resume is not None
    assert decode(one.path, ASK).chat.messages[0].text == "Hello"
    chat = decode(one.path, {"input": "And?", "previous_response_id": before.id}).chat
    assert chat.needs == (before.id,)
    assert [m.text for m in one.resume(chat, {before.id: before}).messages] == ["Hello", "Hi.", "And?"]


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed", "cancelled"])
def test_a_response_that_is_not_complete_is_not_continued(status: str) -> None:
    one = endpoint(PATH)
    assert one.resume is not None
    before = StoredObject(id="resp_1", body={"status": status, "output": []}, items=())
    request = decode(PATH, {"input": "And?", "previous_response_id": "resp_1"})
    with pytest.raises(Invalid, match=f"the response resp_1 is {status}"):
        one.resume(request, {"resp_1": before})


def test_a_background_response_has_to_be_stored() -> None:
    with pytest.raises(Invalid, match="background needs store"):
        decode(PATH, {**ASK, "background": True, "store": False})


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({f"k{i}": "v" for i in range(17)}, "at most 16 pairs"),
        ({"k" * 65: "v"}, "keys of at most 64 characters"),
        ({"k": "v" * 513}, "at most 512 characters"),
        ({"k": 5}, "must be a string"),
        ("k", "must be an object"),
    ],
)
def test_metadata_has_the_bounds_of_openai(metadata: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode(PATH, {**ASK, "metadata": metadata})
    with pytest.raises(Invalid, match=words):
        decode("/v1/chat/completions/{id}", {"metadata": metadata})
    with pytest.raises(Invalid, match=words):
        decode("/v1/chat/completions", {**HELLO, "store": True, "metadata": metadata})
    assert decode("/v1/chat/completions", {**HELLO, "metadata": metadata}).metadata == {}


def test_a_conversation_is_compacted_to_its_user_messages_and_a_summary() -> None:
    one = endpoint("/v1/responses/compact")
    before = stored()
    assert before is not None
    assert one.resume is not None
    request = one.resume(decode(one.path, {"input": "And?", "previous_response_id": before.id}), {before.id: before})
    assert [m.role for m in request.messages] == ["user", "assistant", "user", "user"]
    assert request.messages[-1].text.startswith("Summarize the conversation")

    body: Any = encode(one, request, fold(run_of(TextDelta(text="They greeted.")))).body
    assert (body["object"], body["usage"]["total_tokens"]) == ("response.compaction", 18)
    assert [(i["type"], i.get("role")) for i in body["output"]] == [
        ("message", "user"), ("message", "user"), ("compaction", None),
    ]  # fmt: skip
    again = decode(PATH, {"input": [*body["output"], {"role": "user", "content": "Go on."}]})
    assert [(m.role, m.text) for m in again.messages] == [
        ("user", "Hello"), ("user", "And?"),
        ("assistant", "Summary of the conversation up to here:\nThey greeted."), ("user", "Go on."),
    ]  # fmt: skip
    foreign = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}
    assert turns(foreign, {"role": "user", "content": "a"}) == [("user", "a")]


def test_stored_responses_are_fetched_listed_and_forgotten() -> None:
    before = stored()
    assert before is not None
    fetch = endpoint("/v1/responses/{id}", "GET")
    call = WireRequest(path={"id": before.id})
    assert encode(fetch, fetch.decode(call), before).body == before.body
    replay = WireRequest(path={"id": before.id}, query={"stream": "true", "starting_after": "2"})
    assert fetch.decode(replay) == ReplayStream(kind="response", id=before.id, starting_after=2)
    for wrong in ("x", "-2", "1.5"):
        with pytest.raises(Invalid, match="starting_after must be the number of an event"):
            fetch.decode(WireRequest(path={"id": "r"}, query={"stream": "true", "starting_after": wrong}))
    lost = replace(before, body={**before.body, "status": "in_progress"})
    assert encode(fetch, fetch.decode(call), lost).body["status"] == "failed"  # type: ignore[index,call-overload]

    delete = endpoint("/v1/responses/{id}", "DELETE")
    said: Any = encode(delete, delete.decode(call), Done()).body
    assert said["deleted"] is True

    cancel = endpoint("/v1/responses/{id}/cancel")
    assert encode(cancel, cancel.decode(call), before).body == before.body


def page(items: int, **query: str) -> Any:
    response = StoredObject(
        id="resp_a", body={}, items=tuple({"role": "user", "content": str(i)} for i in range(items))
    )
    one = endpoint("/v1/responses/{id}/input_items", "GET")
    return encode(one, one.decode(WireRequest(path={"id": "resp_a"}, query=query)), response).body


def test_input_items_are_listed_page_by_page_in_both_orders() -> None:
    newest = page(5, limit="2")
    assert [item["content"][0]["text"] for item in newest["data"]] == ["4", "3"]
    assert newest["has_more"] is True
    following = page(5, limit="2", after=newest["last_id"])
    assert [item["content"][0]["text"] for item in following["data"]] == ["2", "1"]
    oldest = page(5, order="asc")
    assert [item["content"][0]["text"] for item in oldest["data"]] == list("01234")
    assert oldest["has_more"] is False
    assert len({item["id"] for item in oldest["data"]}) == 5
    assert page(0) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"order": "up"}, {"after": "no"}])
def test_a_page_that_cannot_be_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        page(3, **query)


def test_a_call_to_a_tool_of_free_text_is_answered_as_such_also_whole() -> None:
    body = {**ASK, "tools": [{"type": "custom", "name": "patch"}]}
    call = ToolCall(id="call_1", name="patch", arguments={"input": "*** Begin"})
    events = run_of(
        ToolCallStarted(index=0, id="call_1", name="patch"), ToolCallFinished(index=0, call=call), end=CALLED
    )

    item = reply(PATH, body, events)["output"][0]

    assert (item["type"], item["name"], item["input"], item["call_id"]) == (
        "custom_tool_call",
        "patch",
        "*** Begin",
        "call_1",
    )
    assert data(PATH, body, events)[-1]["response"]["output"][0] == item


def test_events_of_a_call_that_no_tool_knows_still_come_out() -> None:
    assert reply(PATH, ASK, run_of(*CALL_EVENTS, end=CALLED))["output"][0]["name"] == "weather"


def used(**settings: Any) -> Started:
    """Return the first event of an answer with these settings of the generation."""
    sampling = Sampling(temperature=0.2, top_p=0.5, presence_penalty=0.25, frequency_penalty=-0.5)
    return Started(
        prompt_tokens=12, effective=Effective(model="tiny", context_size=4096, sampling=sampling, **settings)
    )


@pytest.mark.parametrize(("limit", "reported"), [(None, None), (-1, None), (64, 64)])
def test_a_response_reports_the_settings_that_were_used(limit: int | None, reported: int | None) -> None:
    events = (used(max_tokens=limit), TextDelta(text="ok"), STOPPED, DONE)
    body = {**ASK, "temperature": 1.5, "max_output_tokens": 500}  # a route or a limit of the model changes them
    want = {
        "temperature": 0.2, "top_p": 0.5, "presence_penalty": 0.25, "frequency_penalty": -0.5,
        "max_output_tokens": reported,
    }  # fmt: skip

    whole = reply(PATH, body, events)
    streamed = [frame["response"] for frame in data(PATH, body, events) if "response" in frame]

    assert len(streamed) == 3  # created, in_progress, completed
    for response in (whole, *streamed):
        assert {name: response[name] for name in want} == want


def test_settings_that_no_model_has_answered_with_are_those_of_the_request_alone() -> None:
    one = endpoint(PATH)
    assert one.background is not None
    operation = decode(PATH, {**ASK, "background": True, "top_p": 0.7})

    queued = one.background(replace(CONTEXT, operation=operation)).at("queued")

    assert (queued["top_p"], queued["temperature"], queued["max_output_tokens"]) == (0.7, None, None)
