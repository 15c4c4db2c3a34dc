"""One contract for every endpoint: a stream tells what the whole answer tells, ends once, and is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic_core import from_json

from mullama.chat.inventory import TaskStatus
from mullama.chat.types import (
    Event,
    Finished,
    PromptProgress,
    StopReason,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from mullama.dialects import DIALECTS
from mullama.dialects.base import Endpoint, Frame, WireRequest
from mullama.errors import EngineFailed
from tests.dialects import golden
from tests.dialects.wire import (
    CALL_EVENTS,
    CALLED,
    HELLO,
    STARTED,
    data,
    encode,
    endpoint,
    frames,
    reply,
    route,
    run_of,
    stream,
    strict_json,
)

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": HELLO,
    "/api/generate": {"model": "tiny", "prompt": "Hello"},
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"model": "tiny", "prompt": "Hello"},
    "/v1/responses": {"model": "tiny", "input": "Hello"},
    "/v1/messages": {**HELLO, "max_tokens": 9},
    "/completion": {"prompt": "Hello"},
}
PLAIN = {"/v1/completions", "/completion"}  # text alone: no thinking, no calls

CHATS = ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")

TOKEN = TokenLogprob(id=1, text="a", bytes=b"a", logprob=-0.5)
SECOND = ToolCall(id="call_2b", name="clock", arguments={})
CUT = ToolCall(id="call_3c", name="clock", arguments='{"a":1,"b":"x')
SCRIPTS: dict[str, tuple[Event, ...]] = {
    "nothing": run_of(),
    "text": run_of(TextDelta(text="Hel"), TextDelta(text="lo \u2028 \U0001f600"), TextDelta(text="")),
    "limit": run_of(TextDelta(text="Hel"), end=Finished(reason=StopReason.LENGTH)),
    "stop sequence": run_of(TextDelta(text="a"), end=Finished(reason=StopReason.STOP_SEQUENCE, stop_sequence="b")),
    "logprobs": run_of(TextDelta(text="a", logprobs=(TOKEN,)), TextDelta(text="a", logprobs=(TOKEN,))),
    "progress": run_of(PromptProgress(done=3, total=12), TextDelta(text="a")),
    "thinking": run_of(ThinkingDelta(text="h"), ThinkingDelta(text="m"), TextDelta(text="ok")),
    "call": run_of(*CALL_EVENTS, end=CALLED),
    "order": run_of(
        TextDelta(text="text"),
        *CALL_EVENTS,
        ThinkingDelta(text="hm"),
        TextDelta(text="more"),
        ToolCallStarted(index=1, id=SECOND.id, name=SECOND.name),
        ToolCallFinished(index=1, call=SECOND),
        ThinkingDelta(text="well"),
        TextDelta(text=" again"),
        end=CALLED,
    ),
    "cut": run_of(
        TextDelta(text="Look: "),
        ToolCallStarted(index=0, id=CUT.id, name=CUT.name),
        ToolCallDelta(index=0, text='{"a":1,"b":"x'),
        ToolCallFinished(index=0, call=CUT),
        end=Finished(reason=StopReason.LENGTH),
    ),
    "all": run_of(
        ThinkingDelta(text="hm"),
        TextDelta(text="Look: "),
        *CALL_EVENTS,
        ToolCallStarted(index=1, id=SECOND.id, name=SECOND.name),
        ToolCallFinished(index=1, call=SECOND),
        end=CALLED,
    ),
}
CASES = [
    pytest.param(path, events, id=f"{path} {name}")
    for path in BODIES
    for name, events in SCRIPTS.items()
    if not ((path in PLAIN and name in ("thinking", "call", "all")) or (path not in CHATS and name in ("order", "cut")))
]


def is_terminal(frame: Frame) -> bool:
    if frame.data == "[DONE]":
        return True
    if not isinstance(frame.data, dict):
        return False
    kind = frame.data.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        return kind in ("response.completed", "response.incomplete", "response.failed")
    if kind == "error":  # the Responses API's error event is followed by its terminal one
        return "sequence_number" not in frame.data
    ended = frame.data.get("done") or frame.data.get("status") == "success"
    return bool(ended or kind == "message_stop" or "error" in frame.data or frame.data.get("stop") is True)


# What a client puts together from the data of a stream, in the shape of the whole answer.


def fold_ollama(chunks: list[Any], name: str) -> Any:
    whole = dict(chunks[-1])
    inner = [chunk[name] if name == "message" else {"content": chunk["response"], **chunk} for chunk in chunks]
    text = "".join(one["content"] for one in inner)
    thinking = "".join(one.get("thinking", "") for one in inner)
    calls = [call for one in inner for call in one.get("tool_calls", ())]
    logprobs = [token for chunk in chunks for token in chunk.get("logprobs", ())]
    extra = {**({"thinking": thinking} if thinking else {}), **({"tool_calls": calls} if calls else {})}
    said = {"message": {"role": "assistant", "content": text, **extra}} if name == "message" else {}
    plain = {} if name == "message" else {"response": text, **extra}
    return {**whole, **said, **plain, **({"logprobs": logprobs} if logprobs else {})}


def fold_chat(chunks: list[Any]) -> Any:
    first, message, reason, tokens, last = chunks[0], {"content": ""}, None, [], {}
    calls: dict[int, Any] = {}
    for chunk in chunks:
        last = {**last, **{k: v for k, v in chunk.items() if k in ("usage", "timings")}}
        for choice in chunk["choices"]:
            delta = dict(choice["delta"])
            for call in delta.pop("tool_calls", ()):
                known = calls.setdefault(
                    call["index"], {k: v for k, v in call.items() if k not in ("index", "function")}
                )
                function = known.setdefault("function", {"name": "", "arguments": ""})
                for key, text in call["function"].items():
                    function[key] += text
            message["role"] = delta.pop("role", message.get("role"))
            for key, text in delta.items():
                message[key] = message.get(key, "") + text
            tokens += (choice["logprobs"] or {}).get("content", [])
            reason = choice["finish_reason"] or reason
    message |= {"refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = [calls[i] for i in sorted(calls)]
        message["content"] = message["content"] or None
    logprobs = {"content": tokens, "refusal": None} if tokens else None
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return {**first, "object": "chat.completion", "choices": [choice], **last}


def fold_completions(chunks: list[Any]) -> Any:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    logprobs: dict[str, list[Any]] = {}
    for choice in choices:
        for key, values in (choice["logprobs"] or {}).items():
            logprobs.setdefault(key, []).extend(values)
    one = {
        "text": "".join(choice["text"] for choice in choices),
        "index": 0,
        "logprobs": logprobs or None,
        "finish_reason": choices[-1]["finish_reason"],
    }
    last = {k: v for k, v in chunks[-1].items() if k in ("usage", "timings")}
    return {**chunks[0], "choices": [one], **last}


def fold_messages(chunks: list[Any]) -> Any:
    message: dict[str, Any] = {}
    for chunk in chunks:
        match chunk["type"]:
            case "message_start":
                message = dict(chunk["message"])
            case "content_block_start":
                assert chunk["index"] == len(message["content"]), "blocks are numbered in order"
                message["content"] = [*message["content"], {**chunk["content_block"], "json": ""}]
            case "content_block_delta":
                block, delta = message["content"][chunk["index"]], chunk["delta"]
                for key, text in delta.items():
                    if key != "type":
                        name = "json" if key == "partial_json" else key
                        block[name] += text
            case "content_block_stop":
                block = message["content"][chunk["index"]]
                written = block.pop("json")
                if written:
                    block["input"] = from_json(written, allow_partial=True)  # as Anthropic's client does
            case "message_delta":
                message |= {**chunk["delta"], "usage": chunk["usage"]}
    return message


def fold_responses(chunks: list[Any]) -> Any:
    assert [chunk["sequence_number"] for chunk in chunks] == list(range(len(chunks)))
    items = [chunk["item"] for chunk in chunks if chunk["type"] == "response.output_item.done"]
    texts: dict[str, str] = {}
    for chunk in chunks:
        if chunk["type"].endswith("delta"):
            texts[chunk["item_id"]] = texts.get(chunk["item_id"], "") + chunk["delta"]
        if chunk["type"].endswith((".text.done", "_text.done", "arguments.done")):
            assert texts[chunk["item_id"]] == chunk.get("text", chunk.get("arguments"))
    assert chunks[-1]["response"]["output"] == items
    return chunks[-1]["response"]


def fold_native(chunks: list[Any]) -> Any:
    tokens = [token for chunk in chunks for token in chunk.get("completion_probabilities", ())]
    extra = {"completion_probabilities": tokens} if tokens else {}
    return {**chunks[-1], "content": "".join(chunk["content"] for chunk in chunks), **extra}


FOLDS: dict[str, Callable[[list[Any]], Any]] = {
    "/api/chat": lambda chunks: fold_ollama(chunks, "message"),
    "/api/generate": lambda chunks: fold_ollama(chunks, "response"),
    "/v1/chat/completions": fold_chat,
    "/v1/completions": fold_completions,
    "/v1/responses": fold_responses,
    "/v1/messages": fold_messages,
    "/completion": fold_native,
}


def same(value: Any) -> Any:
    """The answer with arguments as values, and without what may differ: whether it was streamed."""
    if isinstance(value, dict):
        return {
            k: from_json(v, allow_partial=True) if k == "arguments" and isinstance(v, str) else same(v)
            for k, v in value.items()
            if k not in ("stream", "generation_settings")
        }
    return [same(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("path", "events"), CASES)
def test_a_stream_put_together_is_the_whole_answer(path: str, events: Sequence[Event]) -> None:
    body = {**BODIES[path], "stream_options": {"include_usage": True}}

    together = FOLDS[path](data(path, body, events))

    assert same(together) == same(reply(path, body, events))


def test_text_and_calls_keep_their_order_in_every_dialect() -> None:
    texts = {
        path: reply(path, BODIES[path], SCRIPTS["order"])
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")
    }

    assert texts["/api/chat"]["message"]["content"] == "text\nmore again"
    assert texts["/v1/chat/completions"]["choices"][0]["message"]["content"] == "text\nmore again"
    kinds = ["text", "tool_use", "thinking", "text", "tool_use", "thinking", "text"]
    assert [block["type"] for block in texts["/v1/messages"]["content"]] == kinds
    items = ["message", "function_call", "reasoning", "message", "function_call", "reasoning", "message"]
    assert [item["type"] for item in texts["/v1/responses"]["output"]] == items


def test_a_call_that_a_limit_cuts_is_returned_with_what_there_is_of_it() -> None:
    answers = {
        path: reply(path, BODIES[path], SCRIPTS["cut"])
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses")
    }

    ollama, chat = answers["/api/chat"], answers["/v1/chat/completions"]["choices"][0]
    assert ollama["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert ollama["done_reason"] == "length"
    assert chat["message"]["tool_calls"][0]["function"]["arguments"] == CUT.arguments
    assert chat["finish_reason"] == "length"
    block = answers["/v1/messages"]["content"][1]
    assert (block["input"], answers["/v1/messages"]["stop_reason"]) == ({"a": 1}, "max_tokens")
    item = answers["/v1/responses"]["output"][1]
    assert (item["arguments"], item["status"], answers["/v1/responses"]["status"]) == (
        CUT.arguments,
        "incomplete",
        "incomplete",
    )


@pytest.mark.parametrize(("path", "events"), CASES)
def test_a_stream_ends_exactly_once_and_all_of_it_is_json(path: str, events: Sequence[Event]) -> None:
    sent = frames(path, BODIES[path], events)

    assert [is_terminal(frame) for frame in sent] == [False] * (len(sent) - 1) + [True]
    for frame in sent:
        strict_json(frame.data)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("after", range(len(SCRIPTS["all"]) + 1))
def test_an_error_ends_a_stream_wherever_it_strikes(path: str, after: int) -> None:
    one = endpoint(path)
    assert one.stream is not None
    encoder = stream(one, one.decode(WireRequest(body={**BODIES[path], "stream": True})))
    script = SCRIPTS["text"] if path in PLAIN else SCRIPTS["all"]

    sent = [frame for event in script[:after] for frame in encoder.feed(event)]
    sent += encoder.fail(EngineFailed("the worker died"))
    sent += [frame for event in script[after:] if event is script[-1] for frame in encoder.feed(event)]
    sent += encoder.fail(EngineFailed("and died again"))

    assert [is_terminal(frame) for frame in sent].count(True) == 1
    assert is_terminal(sent[-1])
    if after < len(script):
        assert "the worker died" in strict_json(sent[-1].data)


@pytest.mark.parametrize("path", BODIES)
def test_a_ping_is_never_a_terminal_nor_data_that_clients_could_take_for_text(path: str) -> None:
    one = endpoint(path)
    assert one.stream is not None
    encoder = stream(one, one.decode(WireRequest(body={**BODIES[path], "stream": True})))

    for frame in encoder.ping():
        assert frame.comment or frame.data == {"type": "ping"}


def test_a_task_ends_with_success_or_with_an_error() -> None:
    one = endpoint("/api/pull")
    assert one.stream is not None
    encoder = stream(one, one.decode(WireRequest(body={"model": "m"})))
    statuses = [TaskStatus(status="pulling manifest"), TaskStatus(status="success")]

    sent = [frame for status in statuses for frame in encoder.feed(status)]
    sent += encoder.fail(EngineFailed("too late"))

    assert [frame.data for frame in sent] == [{"status": "pulling manifest"}, {"status": "success"}]
    assert encode(one, one.decode(WireRequest(body={"model": "m"})), statuses[-1]).body == {"status": "success"}


ALL = [
    pytest.param(dialect.name, one, id=f"{dialect.name} {one.method} {one.path}")
    for dialect in DIALECTS.values()
    for one in dialect.endpoints
]


@pytest.mark.parametrize(("name", "one"), ALL)
def test_every_endpoint_has_a_summary_and_schemas_that_are_schemas(name: str, one: Endpoint) -> None:
    assert one.summary
    assert one.path.startswith("/")
    for schema in (one.request_schema, one.response_schema):
        if schema is not None:
            Draft202012Validator.check_schema(json.loads(strict_json(schema)))
    if one.method == "POST" and one.stream is not None:
        assert one.request_schema is not None


def test_no_method_and_path_is_served_twice_without_a_way_to_choose() -> None:
    seen: dict[tuple[str, str], list[str]] = {}
    for dialect in DIALECTS.values():
        for one in dialect.endpoints:
            if one.when is None:
                seen.setdefault((one.method, one.path), []).append(dialect.name)

    twice = {key: names for key, names in seen.items() if len(names) > 1}

    assert twice == {("HEAD", "/"): ["ollama", "anthropic"]}  # both say no more than that a server is here


def recorded_replies() -> list[Any]:
    found = []
    for path in golden.FILES:
        said = json.loads(path.read_text(encoding="utf-8"))
        if "reply" in said and "error" not in said:
            found.append(pytest.param(said, id=f"{path.parent.name}/{path.stem}"))
    return found


@pytest.mark.parametrize("said", recorded_replies())
def test_recorded_requests_and_replies_fit_the_schemas(said: dict[str, Any]) -> None:
    request = said["request"]
    found = route(request.get("method", "POST"), request["path"], request.get("headers", {}))
    assert found is not None
    one = found[1]

    if one.request_schema is not None:
        Draft202012Validator(json.loads(strict_json(one.request_schema))).validate(request["body"])
    if one.response_schema is not None:
        Draft202012Validator(json.loads(strict_json(one.response_schema))).validate(said["reply"]["body"])


def test_a_stream_begins_before_its_prompt_is_computed_only_with_what_is_true() -> None:
    """message_start carries the real count of the prompt, because some clients read it nowhere else."""
    first = data("/v1/messages", BODIES["/v1/messages"], [STARTED])[0]

    assert first["message"]["usage"]["input_tokens"] + first["message"]["usage"]["cache_read_input_tokens"] == 12
