"""The stream of a peer as events, however its bytes arrive."""

from __future__ import annotations

import json
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat import types as chat
from mullama.chat.answer import Fold
from mullama.errors import Unavailable
from mullama.runtime.peers.answer_stream import AnswerStream


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish}] if delta is not None or finish else []
    return b"data: " + json.dumps({"id": "x", "choices": choices, **more}).encode() + b"\n\n"


USAGE = {
    "prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}  # fmt: skip
WHOLE = b"".join((
    b": keep-alive\n\n",
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Hm."}),
    chunk({"content": "Gr\u00fc\u00df "}),
    chunk({"content": "Gott"}),
    chunk({"tool_calls": [{"index": 0, "id": "call_9", "function": {"name": "look", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"x"}'}}]}),
    chunk(finish="tool_calls"),
    chunk(usage=USAGE),
    b"data: [DONE]\n\n",
))  # fmt: skip


def stream() -> AnswerStream:
    numbers = count()
    return AnswerStream("box", lambda: f"call_{next(numbers)}")


def folded(*pieces: bytes) -> chat.Answer:
    reader, fold = stream(), Fold()
    for piece in pieces:
        for event in reader.feed(piece):
            fold.feed(event)
    for event in reader.end(chat.Timings()):
        fold.feed(event)
    assert reader.complete
    return fold.answer


def test_text_reasoning_calls_and_usage() -> None:
    answer = folded(WHOLE)
    [choice] = answer.choices
    assert (choice.thinking, choice.text) == ("Hm.", "Gr\u00fc\u00df Gott")
    assert choice.tool_calls == (chat.ToolCall(id="call_9", name="look", arguments={"at": "x"}),)
    assert choice.reason is chat.StopReason.TOOL_CALLS
    assert answer.usage == chat.Usage(prompt_tokens=9, cached_tokens=3, completion_tokens=4, reasoning_tokens=1)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_the_places_where_the_bytes_are_cut_do_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]
    assert folded(*(WHOLE[a:b] for a, b in pairwise(places))) == folded(WHOLE)


def test_several_choices_and_a_completion_without_messages() -> None:
    pieces = [
        b'data: {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}\r\n\r\n',
        chunk(finish="stop", index=1), chunk(finish="length", index=0),
    ]  # fmt: skip
    answer = folded(*pieces)
    assert [(c.index, c.text, c.reason) for c in answer.choices] == [
        (0, "a", chat.StopReason.LENGTH), (1, "b", chat.StopReason.STOP),
    ]  # fmt: skip


def test_a_call_without_an_id_gets_one_and_cut_arguments_stay_text() -> None:
    answer = folded(
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a'}}]}), chunk(finish="length")
    )
    assert answer.choices[0].tool_calls == (chat.ToolCall(id="call_0", name="f", arguments='{"a'),)


def test_probabilities_are_carried_over() -> None:
    token = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
    logprobs = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [token]}}]}
    [found] = folded(b"data: " + json.dumps(logprobs).encode() + b"\n", chunk(finish="stop")).choices[0].logprobs
    assert (found.text, found.bytes, found.logprob, found.top[0].text) == ("a", b"a", -0.5, "b")


def test_until_the_peer_counts_the_pieces_are_the_tokens() -> None:
    reader = stream()
    reader.feed(chunk({"content": "a"}) + chunk({"content": "b"}))
    assert reader.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"data: {\n", "is not of OpenAI's API"),
        (b'data: {"choices": [{"index": "x"}]}\n', "choices"),
        (b'data: {"error": {"message": "out of memory"}}\n', "peer box: out of memory"),
        (b"x" * (16 * 1024**2 + 1), "more than"),
    ],
)
def test_another_stream_is_a_fault_of_the_peer(data: bytes, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        stream().feed(data)


@pytest.mark.parametrize("data", [b"", chunk({"content": "a"}), b"data: [DONE]\n\n"])
def test_an_answer_without_its_end_is_a_fault_of_the_peer(data: bytes) -> None:
    reader = stream()
    reader.feed(data)
    with pytest.raises(Unavailable, match="ended its answer early"):
        reader.end(chat.Timings())


def calls_of(*chunks: bytes) -> list[tuple[str, Any]]:
    stream = AnswerStream("p", lambda: "made")
    events = [event for piece in chunks for event in stream.feed(piece)]
    return [(e.call.name, e.call.arguments) for e in events if isinstance(e, chat.ToolCallFinished)]


def call(name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {**more, "function": {**({"name": name} if name else {}), "arguments": arguments}}


@pytest.mark.parametrize(
    "pieces",
    [
        [[call("a", "{}"), call("b", '{"x":1}')]],
        [[call("a", "{}")], [call("b", '{"x":1}')]],
        [[call("a", "{}", id="1")], [call("b", '{"x"', id="2")], [call(None, ":1}", id="2")]],
        [[call("a", "{}", id="1", index=None)], [call("b", '{"x"', index=None)], [call(None, ":1}")]],
        [[call("a", {}, id="1", index=0), call("b", {"x": 1}, id="2", index=1)]],
    ],
)
def test_calls_without_an_index_are_kept_apart(pieces: list[list[dict[str, Any]]]) -> None:
    chunks = [chunk({"tool_calls": piece}) for piece in pieces]
    assert calls_of(*chunks, chunk(finish="tool_calls")) == [("a", {}), ("b", {"x": 1})]


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ((None, None, None), (0, 2)),
        (({"prompt_tokens": 7, "completion_tokens": 1}, None, None), (7, 2)),
        ((None, {"prompt_tokens": 7, "completion_tokens": 9.0}, None), (7, 9)),
        ((None, None, {"prompt_tokens": -7, "completion_tokens": None}), (0, 0)),
    ],
)
def test_the_usage_may_come_at_any_place(usages: tuple[Any, Any, Any], expected: tuple[int, int]) -> None:
    stream = AnswerStream("p", lambda: "made")
    deltas = ({"content": "a"}, {"content": "b"}, {})
    for delta, finish, usage in zip(deltas, (None, None, "stop"), usages, strict=True):
        stream.feed(chunk(delta, finish, usage=usage))
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == expected


def test_an_error_with_the_status_of_a_success_is_shown() -> None:
    stream = AnswerStream("p", lambda: "made")
    stream.feed(b'{"error":\n {"message": "no quota"}}')
    with pytest.raises(Unavailable, match="peer p: no quota"):
        stream.end(chat.Timings())


@pytest.mark.parametrize("top", [None, 7, ["x"], [{"token": 1, "bytes": [999], "logprob": "y"}]])
def test_wrong_probabilities_harm_nothing(top: Any) -> None:
    stream = AnswerStream("p", lambda: "made")
    logprobs = {"content": ["x", {"token": "a", "bytes": ["b"], "logprob": -1, "top_logprobs": top}]}
    tree = {"choices": [{"index": None, "delta": {"content": "a"}, "logprobs": logprobs}]}
    events = stream.feed(b"data: " + json.dumps(tree).encode() + b"\n")
    [text] = [event for event in events if isinstance(event, chat.TextDelta)]
    assert [one.bytes for one in text.logprobs] == [b"a"]


def test_the_mark_of_the_end_counts_after_an_answer_alone() -> None:
    stream = AnswerStream("p", lambda: "made")
    stream.feed(b'data: {"choices": null}\n\ndata: [DONE]\n\n')
    assert not stream.done
    stream.feed(chunk(finish="stop") + b"data: [DONE]\n\n")
    assert stream.done
