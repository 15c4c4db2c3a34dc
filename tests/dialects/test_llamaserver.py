"""llama-server's own endpoints: tokens, templates, native completions, ranking, properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mullama.chat.inventory import ModelCard
from mullama.chat.types import (
    Answer,
    Choice,
    DetokenizedText,
    Finished,
    Ranking,
    StopReason,
    TextDelta,
    TokenCount,
    Tokens,
    Usage,
    Vectors,
)
from mullama.dialects.base import WireRequest
from mullama.errors import Busy, Invalid, Unsupported
from tests.dialects.wire import HELLO, TIMINGS, USAGE, data, decode, encode, endpoint, reply, run_of


def said(path: str, body: Any, result: Any) -> Any:
    one = endpoint(path)
    return encode(one, decode(path, body), result).body


def test_the_model_may_be_left_out() -> None:
    assert decode("/tokenize", {"content": "a"}).model == ""
    assert decode("/tokenize", {"content": "a", "model": "m"}).model == "m"
    assert decode("/apply-template", {"messages": HELLO["messages"]}).chat.model == ""


def test_tokenize_has_the_defaults_of_the_original() -> None:
    operation = decode("/tokenize", {"content": "a"})

    assert (operation.text, operation.add_special, operation.parse_special) == ("a", False, True)


def test_pieces_that_are_parts_of_characters_are_numbers() -> None:
    tokens = Tokens(ids=(1, 2), pieces=(b"a", b"\xc3"))

    assert said("/tokenize", {"content": "a"}, tokens) == {"tokens": [1, 2]}
    assert said("/tokenize", {"content": "a", "with_pieces": True}, tokens) == {
        "tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [0xC3]}]
    }


def test_detokenize_and_apply_template() -> None:
    assert decode("/detokenize", {"tokens": [1, 2]}).tokens == (1, 2)
    assert said("/detokenize", {"tokens": [1]}, DetokenizedText(text="a")) == {"content": "a"}
    assert said("/apply-template", HELLO, DetokenizedText(text="<|user|>")) == {"prompt": "<|user|>"}
    with pytest.raises(Invalid, match=r"tokens\[0\]"):
        decode("/detokenize", {"tokens": [-1]})


def test_infill_puts_files_before_what_stands_before_the_gap() -> None:
    operation = decode(
        "/infill",
        {"input_prefix": "def f(", "input_suffix": "): pass", "prompt": "x", "input_extra": [{"text": "import os"}]},
    )

    assert operation.prompts == ("--- snippet ---\nimport os\ndef f(x",)
    assert operation.suffix == "): pass"


def test_settings_tell_what_was_asked_for_as_json() -> None:
    answer = reply("/completion", {"prompt": "a", "logit_bias": {"5": False}, "samplers": ["top_k"]}, run_of())

    assert answer["generation_settings"]["logit_bias"] == [{"bias": None, "token": 5}]
    assert answer["generation_settings"]["samplers"] == ["top_k"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (StopReason.STOP, "eos"),
        (StopReason.STOP_SEQUENCE, "word"),
        (StopReason.LENGTH, "limit"),
        (StopReason.CANCELLED, "none"),
    ],
)
def test_the_kind_of_end_is_told(reason: StopReason, kind: str) -> None:
    events = run_of(TextDelta(text="a\n"), end=Finished(reason=reason))

    assert reply("/completion", {"prompt": "a"}, events)["stop_type"] == kind
    assert data("/completion", {"prompt": "a"}, events)[-1]["has_new_line"] is True


def choice(index: int) -> Choice:
    return Choice(
        index=index,
        text=str(index),
        thinking="",
        tool_calls=(),
        reason=StopReason.STOP,
        stop_sequence=None,
        logprobs=(),
    )


def test_several_prompts_are_answered_by_a_list() -> None:
    result = Answer(choices=(choice(0), choice(1)), usage=USAGE, timings=TIMINGS)

    answers = said("/completion", {"prompt": ["a", [1, 2]]}, result)

    assert [(a["index"], a["prompt"]) for a in answers] == [(0, "a"), (1, [1, 2])]


def test_tokens_are_returned_when_asked_for() -> None:
    usage = Usage(prompt_tokens=2, completion_tokens=1)
    result = Answer(choices=(replace(choice(0), tokens=(7,)),), usage=usage, timings=TIMINGS)

    assert said("/completion", {"prompt": "a", "return_tokens": True}, result)["tokens"] == [7]
    assert said("/completion", {"prompt": "a"}, result)["tokens"] == []


RANKING = Ranking(results=((2, 0.9), (0, 0.5), (1, float("-inf"))), usage=Usage(prompt_tokens=9))
DOCUMENTS = ["a", {"text": "b"}, "c"]


def test_ranking_in_the_form_of_jina() -> None:
    answer = said("/v1/rerank", {"model": "m", "query": "q", "documents": DOCUMENTS, "return_documents": True}, RANKING)

    assert [(r["index"], r["document"]["text"]) for r in answer["results"]] == [(2, "c"), (0, "a"), (1, "b")]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


def test_ranking_in_the_form_of_text_embeddings_inference() -> None:
    answer = said("/rerank", {"query": "q", "texts": DOCUMENTS, "return_text": True, "top_n": 2}, RANKING)

    assert answer == [{"index": 2, "score": 0.9, "text": "c"}, {"index": 0, "score": 0.5, "text": "a"}]


@pytest.mark.parametrize(
    "body", [{"documents": ["a"]}, {"query": "q"}, {"query": "q", "documents": []}, {"query": "q", "documents": [5]}]
)
def test_ranking_of_nothing_is_refused(body: Any) -> None:
    with pytest.raises(Invalid):
        decode("/v1/reranking", body)


def test_native_embeddings_are_nested_and_normalised_unless_told_otherwise() -> None:
    vectors = Vectors(vectors=((0.5,),), usage=Usage())

    assert said("/embedding", {"content": "a"}, vectors) == [{"index": 0, "embedding": [[0.5]]}]
    assert decode("/embedding", {"content": "a"}).normalize is True
    assert decode("/embedding", {"content": "a", "embd_normalize": -1}).normalize is False
    with pytest.raises(Unsupported, match="embd_normalize"):
        decode("/embedding", {"content": "a", "embd_normalize": 1})


def test_slots_can_be_asked_to_have_one_free() -> None:
    one = endpoint("/slots", "GET")
    busy = ModelCard(name="m", parallel=2, active=2, context_size=512)
    asked = one.decode(WireRequest(query={"fail_on_no_slot": "1", "model": "m"}))

    with pytest.raises(Busy, match="no slot available"):
        encode(one, asked, busy)
    slots: Any = encode(one, one.decode(WireRequest()), busy).body
    assert [slot["is_processing"] for slot in slots] == [True, True]


@pytest.mark.parametrize("path", ["/props", "/slots/{slot}"])
def test_what_is_declared_elsewhere_answers_why(path: str) -> None:
    one = endpoint(path)
    refused = encode(one, one.decode(WireRequest(path={"slot": "0"})), None)
    body: Any = refused.body

    assert refused.status == 501
    assert body["error"]["type"] == "not_supported_error"


def test_counts_have_one_shape() -> None:
    assert said("/v1/messages/count_tokens", HELLO, TokenCount(tokens=3)) == {"input_tokens": 3}
    assert said("/v1/responses/input_tokens", {"model": "m", "input": "a"}, TokenCount(tokens=3))["input_tokens"] == 3


def test_bare_paths_serve_what_the_versioned_ones_do() -> None:
    for path in ("/chat/completions", "/embeddings", "/responses", "/messages"):
        assert endpoint(path).decode is endpoint(f"/v1{path}").decode
    assert endpoint("/models", "GET", "openai").decode is endpoint("/v1/models", "GET", "openai").decode
    assert endpoint("/completions").decode is endpoint("/completion").decode
