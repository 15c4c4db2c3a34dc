"""Conversations whose history changes, on memory that cannot be cut: they continue from checkpoints, and answer the
same as without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.engines.base import ContextOptions, Engine, Generate, Prefix
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask, user
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

KINDS = ["window", "recurrent", "hybrid", "hybrid window"]
OPTIONS = ContextOptions(size=1024, parallel=2, threads=1)
SYSTEM = f"<|im_start|>system\n{'You answer in one short sentence, and you never make anything up. ' * 5}<|im_end|>\n"
TOPICS = ["lakes", "stones", "trees", "roads"]


def question(topic: str) -> str:
    return user(f"Tell me what you know about {topic}, in short. " * 6)


def job(id: int, prompt: str, **changes: Any) -> Generate:
    return ask(id, prompt, logprobs=ALTERNATIVES, max_tokens=12, ignore_eos=True, **changes)


def both(engine: Engine, prompt: str) -> Result:
    """The answer to a prompt; it is that of a computation from the first token."""
    (result,) = answers(engine, job(1, prompt))
    assert_same_answers(engine.facts, [result], answers(engine, job(1, prompt, cache=False)))
    return result


def cached(result: Result) -> int:
    assert result.begun is not None
    return result.begun.cached_tokens


@pytest.fixture(params=KINDS)
def engine(
    request: pytest.FixtureRequest, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> LlamaEngine:
    engine = load("llamacpp", random_model(request.param))
    engine.open_context("main", OPTIONS)
    return engine


def test_a_conversation_without_its_last_reasoning_continues_where_the_answer_began(engine: LlamaEngine) -> None:
    prompt, before = SYSTEM, 0
    for topic in TOPICS:
        prompt += question(topic)
        result = both(engine, prompt)
        assert cached(result) >= before - 16
        before = result.begun.prompt_tokens if result.begun else 0
        prompt += result.text[len(result.text) // 2 :] + "<|im_end|>\n"
    (stats,) = engine.stats().checkpoints
    assert stats.count > 2
    assert stats.restored > 0 or engine._contexts["main"].native.model.window  # which still covers the stop
    assert 0 < stats.bytes <= stats.most_bytes


def test_an_edited_question_continues_after_the_one_before(engine: LlamaEngine) -> None:
    prompt = SYSTEM + question("lakes") + "A lake is water.<|im_end|>\n"
    both(engine, prompt + question("stones"))
    for topic in ("trees", "roads"):
        edited = both(engine, prompt + question(topic))
        assert cached(edited) >= len(engine.tokenize(prompt, add_special=True, parse_special=True)) - 2


def test_one_conversation_continues_beside_others(engine: LlamaEngine) -> None:
    """More conversations than requests at once take turns, each with its own history."""
    prompts = {topic: SYSTEM + question(topic) for topic in TOPICS[:3]}
    for turn in range(3):
        for topic, prompt in prompts.items():
            result = both(engine, prompt)
            if turn:
                assert cached(result) > 100 + 75 * turn
            prompts[topic] = prompt + result.text[:3] + "<|im_end|>\n" + question(topic)


def test_requests_of_a_burst_share_what_they_have_in_common(engine: LlamaEngine) -> None:
    """The common text is not declared. The first request stops at its end for the others."""
    prompts = [SYSTEM + question(topic) for topic in TOPICS]
    results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(prompts)))
    alone = [answers(engine, job(1, prompt, cache=False))[0] for prompt in prompts]
    assert_same_answers(engine.facts, results, alone)
    common = len(engine.tokenize(SYSTEM, add_special=True, parse_special=True))
    assert [cached(result) >= common - 1 for result in results] == [False, True, True, True]


def test_a_declared_prefix_that_a_request_computes_first_is_kept(engine: LlamaEngine) -> None:
    main = engine._contexts["main"]
    driver = Driver(engine).submit(job(1, SYSTEM + question("lakes")))
    assert engine.declare_prefixes("main", (Prefix(text=SYSTEM),)) > 10
    driver.run(until=lambda: main.prefixes.complete)
    assert driver.results[1].ended is None, "it is complete before the request ends"
    driver.run()
    assert cached(both(engine, SYSTEM + question("trees"))) >= len(main.cache.tokens(main.cache.pinned[0]))


def test_an_aborted_decode_continues_from_a_checkpoint(engine: LlamaEngine) -> None:
    prompt = SYSTEM * 3 + question("lakes")
    (expected,) = answers(engine, job(1, prompt, cache=False))
    engine.close_context("main")
    engine.open_context("main", replace(OPTIONS, batch=32, ubatch=16))
    context = engine._contexts["main"]
    driver = Driver(engine).submit(job(2, prompt))
    system = len(engine.tokenize(SYSTEM * 3, add_special=True, parse_special=True))

    def computed() -> int:
        return next((c.computed for c in context._running.values()), 0)

    driver.run(until=lambda: computed() > system + 16)
    context.native.stop_decode()
    driver.step()
    assert computed() >= system - 1
    assert_same_answers(engine.facts, [driver.run()[2]], [expected])


def test_the_memory_of_checkpoints_is_bounded(engine: LlamaEngine) -> None:
    checkpoints = engine._contexts["main"].cache.checkpoints
    both(engine, SYSTEM + question("lakes"))
    checkpoints.most_bytes = 3 * checkpoints.largest
    for topic in TOPICS * 2:
        both(engine, question(topic) + SYSTEM)
        assert 0 < checkpoints.bytes <= checkpoints.most_bytes
    checkpoints.most_bytes = 0
    checkpoints.clear()
    both(engine, SYSTEM + question("roads"))
    assert checkpoints.kept == ()


def test_a_state_that_llama_cpp_refuses_is_computed_again(engine: LlamaEngine) -> None:
    prompt = SYSTEM + question("lakes")
    both(engine, prompt)
    for checkpoint in engine._contexts["main"].cache.checkpoints.kept:
        checkpoint.state = bytes(checkpoint.state[: checkpoint.size // 2])
    both(engine, prompt + "no<|im_end|>\n" + question("stones"))
    both(engine, prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_a_declared_prefix_comes_back_from_disk(
    kind: str, tmp_path: Path, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    options = replace(OPTIONS, prefixes=(Prefix(text=SYSTEM),), state_dir=str(tmp_path), state_key="k")
    first = load("llamacpp", random_model(kind))
    assert not first.open_context("main", options).prefix_restored
    expected = both(first, SYSTEM + question("lakes"))
    (file,) = tmp_path.glob("*.prefix")
    whole = file.read_bytes()
    for data, restored in ((whole, True), (whole[:-100], False), (whole[:-1] + b"x", False)):
        file.write_bytes(data)
        engine = load("llamacpp", random_model(kind))
        assert engine.open_context("main", options).prefix_restored is restored
        result = both(engine, SYSTEM + question("lakes"))
        assert_same_answers(engine.facts, [result], [expected])
        assert cached(result) > 50
    assert file.read_bytes() == whole
