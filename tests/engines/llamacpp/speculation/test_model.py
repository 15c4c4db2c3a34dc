"""Guesses of a draft model: answers are those without, whatever it guesses; its vocabulary must be the same."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from mullama.engines.base import DraftOptions
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.speculation.model import ModelDrafter
from mullama.errors import BadWeights
from mullama.struct import replace
from tests.engines.engine_driver import Driver, answers, ask, user
from tests.engines.llamacpp.speculation.test_answers import PLAIN, guesses, jobs, run
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

pytestmark = pytest.mark.usefixtures("guessing")


def options(path: str, **changes: object) -> DraftOptions:
    return DraftOptions(kind="model", files=(path,), **{"tokens": 6, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("drafter", ["tiny", "llama", "window", "recurrent"])
def test_answers_are_those_without_the_draft_model(
    drafter: str, tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """The model itself guesses nearly everything right, a random one nearly nothing."""
    engine = load("llamacpp", tiny_path)
    expected = run(engine, PLAIN, *jobs())
    path = tiny_path if drafter == "tiny" else random_model(drafter)
    found = run(engine, replace(PLAIN, draft=options(path)), *jobs())
    assert_same_answers(engine.facts, found, expected)
    guessed, accepted = guesses(found)
    assert guessed > 4
    assert (accepted > guessed / 2) == (drafter == "tiny")
    assert not engine._drafters._loaded, "freed with the last context that uses it"


def test_a_later_request_reads_only_what_differs(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(PLAIN, draft=options(tiny_path)))
    first = answers(engine, *jobs()[2:3])
    speculator = engine._contexts["main"]._speculator
    assert speculator is not None
    native = speculator._drafter._native  # type: ignore[attr-defined]
    sizes, decode = [], native.decode
    native.decode = lambda batch: (sizes.append(batch.count), decode(batch))[1]
    assert_same_answers(engine.facts, answers(engine, *jobs()[2:3]), first)
    assert sizes[0] < 8


@pytest.mark.skipif(sys.platform != "linux", reason="a cache takes memory as it fills on Linux")
def test_the_texts_of_a_draft_model_keep_within_the_pool(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """Ended texts go first; a request whose text has no room gets no guesses."""
    engine = load("llamacpp", tiny_path)
    small = replace(PLAIN, size=256, pool=256)
    short = [
        ask(i, user(f"{word} " * 12), max_tokens=24, logprobs=ALTERNATIVES)
        for i, word in enumerate(("Hello", "1 2", "sea"))
    ]
    long = ask(9, user("How are you? " * 38), max_tokens=24, logprobs=ALTERNATIVES)
    work = [*short, long]
    expected = run(engine, replace(PLAIN, size=256), *work)
    facts = engine.open_context("main", replace(small, draft=options(tiny_path)))
    speculator = engine._contexts["main"]._speculator
    assert speculator is not None
    drafter = speculator._drafter
    assert isinstance(drafter, ModelDrafter)
    assert drafter._native.kv_bytes == facts.kv_bytes
    driver, most = Driver(engine).submit(*short), 0
    while engine.busy:
        driver.step()
        if not engine.busy and long.id not in driver.results:
            driver.submit(long)
        texts = [*drafter._idle, *drafter._texts.values()]
        most = max(most, sum(len(text.tokens) for text in texts))
        assert {drafter._native.last_position(text.sequence) + 1 == len(text.tokens) for text in texts} == {True}
    assert 192 < most <= 256
    found = [driver.results[job.id] for job in work]
    assert_same_answers(engine.facts, found, expected)
    assert all(guesses([result])[0] for result in found)


def test_unlikely_guesses_are_not_made(
    tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """The random model is sure of nothing, the built-in one of most that it writes."""
    engine = load("llamacpp", tiny_path)
    found = {
        path: guesses(run(engine, replace(PLAIN, draft=options(path, min_probability=0.9)), *jobs()))[0]
        for path in (tiny_path, random_model("llama"))
    }
    assert found[tiny_path] > 20
    assert found[random_model("llama")] == 0


def test_another_vocabulary_is_refused_with_both_names(
    tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path)
    with pytest.raises(BadWeights, match=r"draft model renamed.gguf has another vocabulary than tiny.gguf: token 1000"):
        engine.open_context("main", replace(PLAIN, draft=options(random_model("renamed"))))
    engine.open_context("main", PLAIN)
    assert answers(engine, *jobs()[:1])[0].text


def test_a_draft_model_that_cannot_be_loaded_is_named(
    tiny_path: str, tmp_path: object, load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path)
    with pytest.raises(BadWeights, match=r"absent\.gguf"):
        engine.open_context("main", replace(PLAIN, draft=options(f"{tmp_path}/absent.gguf")))


def test_contexts_share_a_draft_model(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    for name in ("one", "two"):
        engine.open_context(name, replace(PLAIN, draft=options(tiny_path)))
    assert len(engine._drafters._loaded) == 1
    engine.close_context("one")
    assert len(engine._drafters._loaded) == 1
    engine.close_context("two")
    assert not engine._drafters._loaded
