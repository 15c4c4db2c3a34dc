"""Prefixes that are declared after the context opened: computed once, whenever the first request arrives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.engines.base import ContextOptions, Generate, Prefix
from mullama.engines.llamacpp.cache.slots import LONG_PREFIX, SlotCache
from mullama.engines.llamacpp.context import TextContext
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask, user
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

ADVICE = "You answer in one short sentence, and you never make up facts. "
SYSTEM = f"<|im_start|>system\n{ADVICE * 24}<|im_end|>\n"
OPTIONS = ContextOptions(size=1024, parallel=3, threads=1, batch=128, ubatch=128)
PREFIXES = (Prefix(text=SYSTEM),)
QUESTIONS = ["How are you?", "What is 3 plus 4?", "Who are you?"]
PROMPTS = [SYSTEM + user(question) for question in QUESTIONS]


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    assert isinstance(main(engine).cache, SlotCache)
    return engine


def main(engine: LlamaEngine) -> TextContext:
    return engine._contexts["main"]


def length(engine: LlamaEngine) -> int:
    tokens = len(engine.tokenize(SYSTEM, add_special=True, parse_special=True))
    assert tokens > LONG_PREFIX
    return tokens


def cached(*results: Result) -> list[int]:
    return [result.begun.cached_tokens if result.begun else -1 for result in results]


def job(id: int, prompt: str) -> Generate:
    return ask(id, prompt, logprobs=ALTERNATIVES)


def expected(engine: LlamaEngine, prompts: list[str]) -> list[Result]:
    """The answer to each prompt in a context of its own."""
    results = []
    for prompt in prompts:
        engine.open_context("alone", replace(OPTIONS, parallel=1))
        results += answers(engine, ask(1, prompt, context="alone", logprobs=ALTERNATIVES))
        engine.close_context("alone")
    return results


def test_slots_have_it_before_the_first_request(engine: LlamaEngine) -> None:
    assert engine.declare_prefixes("main", PREFIXES) == length(engine)
    Driver(engine).run()
    assert main(engine).cache.used == length(engine)
    before = engine.stats().prompt_tokens
    results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(PROMPTS)))
    assert min(cached(*results)) >= length(engine) - 1
    assert engine.stats().prompt_tokens - before < length(engine), "none computed it"
    assert_same_answers(engine.facts, results, expected(engine, PROMPTS))


def test_requests_wait_for_the_one_that_is_being_computed(engine: LlamaEngine) -> None:
    engine.declare_prefixes("main", PREFIXES)
    driver = Driver(engine)
    driver.step()
    work = main(engine).prefixes.work
    assert work is not None
    assert 0 < work.computed < length(engine)
    driver.submit(*(job(i, prompt) for i, prompt in enumerate(PROMPTS))).run()
    results = [driver.results[i] for i in range(3)]
    assert min(cached(*results)) >= length(engine) - 1
    assert_same_answers(engine.facts, results, expected(engine, PROMPTS))


def test_requests_that_come_first_compute_it_once_for_all(engine: LlamaEngine) -> None:
    """They arrive with the declaration, before it is begun: the first computes it in its own turn."""
    engine.declare_prefixes("main", PREFIXES)
    results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(PROMPTS)))
    assert main(engine).prefixes.complete
    assert cached(results[0]) == [0]
    assert min(cached(*results[1:])) >= length(engine) - 1
    assert_same_answers(engine.facts, results, expected(engine, PROMPTS))


def test_a_prefix_that_a_running_request_began_with_is_not_computed_again(engine: LlamaEngine) -> None:
    driver = Driver(engine).submit(job(1, PROMPTS[0]))
    driver.run(until=lambda: driver.results[1].count > 0)
    engine.declare_prefixes("main", PREFIXES)
    driver.run()
    steps = engine.stats().steps
    engine.declare_prefixes("main", PREFIXES)
    Driver(engine).run()
    assert engine.stats().steps == steps
    assert main(engine).prefixes.complete


def test_a_short_prefix_is_left_to_the_first_request(engine: LlamaEngine) -> None:
    assert engine.declare_prefixes("main", (Prefix(text=SYSTEM[:200]),)) == 0
    assert not engine.busy


def test_a_request_that_needs_the_last_slot_gets_it(engine: LlamaEngine) -> None:
    engine.declare_prefixes("main", PREFIXES)
    driver = Driver(engine)
    driver.step()
    assert main(engine).prefixes.work is not None
    driver.submit(*(ask(i, user(question)) for i, question in enumerate(QUESTIONS)))
    driver.run(until=lambda: all(driver.results[i].begun for i in range(3)))
    assert main(engine).prefixes.work is None
    assert main(engine).running == 3
    driver.run()
    assert main(engine).prefixes.complete, "it is computed when the requests have ended"


def test_slots_restore_it_from_disk(engine: LlamaEngine, tmp_path: Path) -> None:
    engine.close_context("main")
    options = replace(OPTIONS, state_dir=str(tmp_path), state_key="k")
    engine.open_context("main", options)
    engine.declare_prefixes("main", PREFIXES)
    Driver(engine).run()
    engine.close_context("main")
    engine.open_context("main", options)
    steps = engine.stats().steps
    engine.declare_prefixes("main", PREFIXES)
    assert not engine.busy
    results = answers(engine, job(1, PROMPTS[0]))
    assert cached(*results)[0] >= length(engine) - 1
    assert engine.stats().steps > steps
    assert_same_answers(engine.facts, results, expected(engine, PROMPTS[:1]))
