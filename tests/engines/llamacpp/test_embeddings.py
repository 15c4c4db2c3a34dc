"""Vectors and scores: inputs decoded together have the vectors of each alone, with the requested pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mullama.engines.base import ContextOptions, Embed
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.errors import Kind, Unsupported
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask

OPTIONS = ContextOptions(size=256, parallel=2, threads=1, embedding=True)
TEXTS = ["one", "two words", "three more words here", "a much longer text that goes on and on " * 5, "x"]


@pytest.fixture(params=["encoder", "decoder"])
def engine(
    request: pytest.FixtureRequest, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> LlamaEngine:
    return load("llamacpp", random_model(request.param))


def embed(engine: LlamaEngine, *inputs: str, **changes: Any) -> Result:
    return answers(engine, Embed(id=1, context="main", inputs=inputs, **changes))[0]


def vectors(result: Result) -> np.ndarray:
    assert result.embedded is not None, result.failed
    return np.array(result.embedded.vectors)


@pytest.mark.parametrize("pooling", ["", "mean", "cls", "last"])
def test_inputs_together_give_the_vectors_of_each_alone(pooling: Any, engine: LlamaEngine) -> None:
    if pooling == "cls" and engine._model.causal:
        pooling = "last"
    engine.open_context("main", replace(OPTIONS, pooling=pooling))
    together = vectors(embed(engine, *TEXTS))
    alone = np.concatenate([vectors(embed(engine, text)) for text in TEXTS])
    assert together.shape == (len(TEXTS), engine.facts.embedding_length)
    assert np.allclose(together, alone, atol=1e-3)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-4)


def test_without_pooling_each_token_has_a_raw_vector(engine: LlamaEngine) -> None:
    engine.open_context("main", replace(OPTIONS, pooling="mean"))
    mean = vectors(embed(engine, *TEXTS, normalize=False))
    counts = [embed(engine, text).embedded.tokens for text in TEXTS]  # type: ignore[union-attr]
    engine.close_context("main")
    engine.open_context("main", replace(OPTIONS, pooling="none"))
    for normalize in (True, False):
        result = embed(engine, *TEXTS, normalize=normalize)
        assert result.embedded is not None
        assert list(result.embedded.rows) == counts
        parts = np.split(vectors(result), np.cumsum(counts)[:-1])
        assert np.allclose([part.mean(axis=0) for part in parts], mean, atol=1e-3)


def test_a_mean_over_several_physical_batches_is_that_of_one(engine: LlamaEngine) -> None:
    engine.open_context("main", replace(OPTIONS, pooling="mean", ubatch=16))
    small = vectors(embed(engine, TEXTS[3]))
    engine.close_context("main")
    engine.open_context("main", replace(OPTIONS, pooling="mean"))
    assert np.allclose(small, vectors(embed(engine, TEXTS[3])), atol=1e-3)


def test_vectors_may_keep_their_length(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    raw, unit = vectors(embed(engine, "some text", normalize=False)), vectors(embed(engine, "some text"))
    assert not np.isclose(np.linalg.norm(raw), 1, atol=1e-2)
    assert np.allclose(raw / np.linalg.norm(raw), unit, atol=1e-4)


def test_a_long_input_is_cut_or_refused_as_asked(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    cut = embed(engine, "word " * 900)
    assert cut.embedded is not None
    assert cut.embedded.tokens == 256
    refused = embed(engine, "word " * 900, truncate=False)
    assert refused.failed is not None
    assert refused.failed.kind is Kind.INVALID
    assert dict(refused.failed.numbers)["context_size"] == 256


def test_hundreds_of_inputs_take_few_decodes(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    texts = [f"number {i}" for i in range(200)]
    driver = Driver(engine).submit(Embed(id=1, context="main", inputs=tuple(texts)))
    result = driver.run()[1]
    assert vectors(result).shape[0] == 200
    assert driver.steps < 40


@pytest.mark.parametrize(("kind", "decodes"), [("encoder", 2), ("decoder", 1)])
def test_an_encoder_reads_fewer_tokens_at_once_than_a_decoder(
    kind: str, decodes: int, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """Four inputs of 100 tokens fit into the batch of a decoder, and two into that of an encoder on the CPU."""
    engine = load("llamacpp", random_model(kind))
    engine.open_context("main", replace(OPTIONS, size=512))
    driver = Driver(engine).submit(Embed(id=1, context="main", inputs=(tuple(range(10, 110)),) * 4))
    driver.run()
    assert engine.stats().steps == decodes


def test_two_jobs_share_decodes_and_get_their_own_vectors(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    jobs = [Embed(id=i, context="main", inputs=(f"text {i}", f"more {i}")) for i in range(5)]
    results = answers(engine, *jobs)
    for i, result in enumerate(results):
        assert np.allclose(vectors(result), vectors(embed(engine, f"text {i}", f"more {i}")), atol=1e-3)


def test_an_empty_input_fails_and_names_itself(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    bad = Embed(id=1, context="main", inputs=((),))
    (result,) = answers(engine, bad)
    assert result.failed is not None
    assert "empty" in result.failed.message


def test_an_embedding_job_can_be_cancelled(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(Embed(id=1, context="main", inputs=tuple(TEXTS) * 50))
    driver.step()
    engine.interrupt()
    engine.cancel(1)
    result = driver.run()[1]
    assert result.ended is not None
    assert result.ended.reason == "cancelled"


def test_an_interrupted_decode_is_done_again(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    expected = vectors(embed(engine, *TEXTS))
    native = engine._vectors["main"].native
    driver = Driver(engine).submit(Embed(id=1, context="main", inputs=tuple(TEXTS)))
    for _ in range(5):
        native.stop_decode()
        driver.step()
    assert np.allclose(vectors(driver.run()[1]), expected, atol=1e-3)


def test_pairs_get_scores_of_the_rank_head(
    random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", random_model("rank"))
    assert engine.facts.can_rank
    engine.open_context("main", OPTIONS)
    pairs = (("what is it", "it is this"), ("what is it", "something else"), ("a", "b"))
    (result,) = answers(engine, Embed(id=1, context="main", pairs=pairs))
    scores = vectors(result)
    assert scores.shape == (3, 1)
    assert len(set(scores.ravel().tolist())) == 3
    (again,) = answers(engine, Embed(id=1, context="main", pairs=pairs[1:2]))
    assert vectors(again)[0] == pytest.approx(scores[1], abs=1e-3)
    refused = embed(engine, "text")
    assert refused.failed is not None
    assert "ranks pairs" in refused.failed.message


def test_pairs_that_are_tokenized_before_get_the_same_scores(
    random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """Long pairs are tokenized beside the decodes."""
    engine = load("llamacpp", random_model("rank"))
    engine.open_context("main", OPTIONS)
    job = Embed(id=1, context="main", pairs=(("what is it", "it is this"), ("a", "b")))

    prepared = engine.prepare(job)

    assert isinstance(prepared, Embed)
    assert (prepared.pairs, prepared.ranked, len(prepared.inputs)) == ((), True, 2)
    ((one,), (other,)) = answers(engine, job), answers(engine, prepared)
    assert vectors(one) == pytest.approx(vectors(other), abs=1e-3)


def test_a_model_without_a_rank_head_refuses_pairs(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    (result,) = answers(engine, Embed(id=1, context="main", pairs=(("a", "b"),)))
    assert result.failed is not None
    assert "rank head" in result.failed.message


def test_an_encoder_refuses_to_write_text(random_model: Callable[[str], str], load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", random_model("encoder"))
    with pytest.raises(Unsupported, match="vectors"):
        engine.open_context("main", replace(OPTIONS, embedding=False))


def test_a_context_of_vectors_refuses_text_without_naming_itself(engine: LlamaEngine) -> None:
    engine.open_context("5f3a9c", OPTIONS)
    (result,) = answers(engine, ask(1, "a", context="5f3a9c"))
    assert result.failed is not None
    assert result.failed.kind is Kind.INVALID
    assert result.failed.message == "this model computes vectors, not text"


def test_a_wordpiece_vocabulary_reads_every_letter_of_a_syllable(
    random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", random_model("wordpiece"))
    syllable, accents = (
        engine.tokenize(text, add_special=False, parse_special=False) for text in ("\ud55c", "\u00e9\u1ebf e\u0301")
    )
    assert syllable == (4, 5, 6)
    assert accents == (7, 8, 7)
