"""The division of many inputs into jobs, and the bounds of one request."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.types import EmbedRequest, PromptInput
from mullama.errors import Invalid, TooLarge, Unsupported
from mullama.manifest.spec import Embedding
from mullama.runtime.serving.vectors import (
    MOST_NUMBERS,
    MOST_PAIR_CHARACTERS,
    check_ids,
    check_pooling,
    embed_slices,
    rerank_slices,
    shortened,
    with_declared,
)


@pytest.mark.parametrize(
    ("count", "width", "sizes"),
    [
        (1, 384, [1]),
        (2048, 16, [2048]),
        (2048, 384, [341, 341, 341, 341, 341, 341, 2]),
        (3, 2**17, [1, 1, 1]),
        (3, 2**20, [1, 1, 1]),
        (0, 384, [0]),
    ],
)
def test_a_job_has_as_many_inputs_as_its_answer_may_have_vectors(count: int, width: int, sizes: list[int]) -> None:
    inputs = [str(i) for i in range(count)]
    slices = embed_slices(inputs, width)
    assert [len(one) for one in slices] == sizes
    assert [text for one in slices for text in one] == inputs


def test_inputs_with_more_numbers_than_an_answer_may_have_are_refused() -> None:
    width = 4096
    assert len(embed_slices(["x"] * (MOST_NUMBERS // width), width)) == 32
    with pytest.raises(TooLarge, match=r"send at most 1024 inputs") as caught:
        embed_slices(["x"] * (MOST_NUMBERS // width + 1), width)
    assert "1025 inputs" in caught.value.message


def test_a_job_of_pairs_has_a_bounded_number_of_characters() -> None:
    pairs = rerank_slices("q" * 1000, ["d" * 1000] * 1500)
    assert [len(one) for one in pairs] == [524, 524, 452]
    assert pairs[0][0] == ("q" * 1000, "d" * 1000)
    assert rerank_slices("q", []) == [()]


def test_the_query_counts_once_for_each_document() -> None:
    rerank_slices("q" * (MOST_PAIR_CHARACTERS // 1024 - 1), ["d"] * 1024)
    with pytest.raises(TooLarge, match="1024 documents, each with the query of 16384 characters"):
        rerank_slices("q" * (MOST_PAIR_CHARACTERS // 1024), ["d"] * 1024)


@pytest.mark.parametrize(
    ("dimensions", "normalize", "vectors"),
    [
        (None, True, ((3.0, 4.0, 12.0),)),
        (3, True, ((3.0, 4.0, 12.0),)),
        (2, True, ((0.6, 0.8),)),
        (2, False, ((3.0, 4.0),)),
    ],
)
def test_a_shortened_vector_is_normalised_again(
    dimensions: int | None, normalize: bool, vectors: tuple[tuple[float, ...], ...]
) -> None:
    request = EmbedRequest(model="m", inputs=("x",), truncate=True, dimensions=dimensions, normalize=normalize)
    assert shortened(((3.0, 4.0, 12.0),), request) == vectors


def test_vectors_of_tokens_are_for_the_endpoint_that_can_return_them() -> None:
    request = EmbedRequest(model="m", inputs=("a", "b"))
    with pytest.raises(Unsupported, match=r'"m" gives a vector for each token'):
        check_pooling(request, "none")
    for pooling in ("", "mean", "last", "cls", "rank"):
        check_pooling(request, pooling)
    check_pooling(EmbedRequest(model="m", inputs=("a",), pooled=False), "none")
    assert embed_slices(request.inputs, 4, pooling="none") == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        (((1, 99),), ""),
        ((("x", 3, 4),), ""),
        (((1, 2), (3, 100, 4)), "input[1]: token 1 is 100"),
        (((1, 2), "text", ("x", 3, 101)), "input[2]: token 2 is 101"),
        (((100,),), "input: token 0 is 100"),
        (("text", ()), ""),
    ],
)
def test_a_token_outside_the_vocabulary_is_refused_with_its_input(inputs: Any, place: str) -> None:
    if not place:
        check_ids(inputs, 100, "input")
        return
    with pytest.raises(Invalid) as raised:
        check_ids(inputs, 100, "input")
    assert (raised.value.message, raised.value.field) == (place, place.partition(":")[0])


DECLARED = Embedding(prompts={"query": "query: ", "passage": "passage: "}, default_prompt="passage", dimensions=8)


@pytest.mark.parametrize(
    ("prompt", "given", "inputs"),
    [
        (None, ("a", "b"), ("passage: a", "passage: b")),
        ("query", ("a", (5, 6)), ("query: a", (5, 6))),
        ("query", (("a", 5), ()), (("query: a", 5), ())),
    ],
)
def test_a_declared_prompt_is_before_each_text(
    prompt: str | None, given: tuple[PromptInput, ...], inputs: tuple[PromptInput, ...]
) -> None:
    request = EmbedRequest(model="m", inputs=given, prompt=prompt)
    assert with_declared(request, DECLARED).inputs == inputs
    assert with_declared(EmbedRequest(model="m", inputs=given), Embedding()).inputs == given


@pytest.mark.parametrize(
    ("declared", "hint"),
    [(DECLARED, "its prompts are query, passage"), (Embedding(), "declare it in embedding.prompts of the model")],
)
def test_a_prompt_that_the_model_does_not_have_is_refused(declared: Embedding, hint: str) -> None:
    request = EmbedRequest(model="m", inputs=("a",), prompt="document", prompt_place="input_type")
    with pytest.raises(Invalid, match="m has no prompt 'document'") as caught:
        with_declared(request, declared)
    assert (caught.value.field, caught.value.hint) == ("input_type", hint)


@pytest.mark.parametrize(("asked", "length"), [(None, 8), (8, 8), (3, 3)])
def test_a_request_may_ask_for_fewer_numbers_than_declared(asked: int | None, length: int) -> None:
    request = EmbedRequest(model="m", inputs=("a",), dimensions=asked)
    assert with_declared(request, DECLARED).dimensions == length


def test_more_numbers_than_declared_are_refused() -> None:
    with pytest.raises(Invalid, match="dimensions is 9, but the vectors of m have 8 numbers"):
        with_declared(EmbedRequest(model="m", inputs=("a",), dimensions=9), DECLARED)
