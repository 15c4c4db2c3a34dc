"""One context: pace of its steps, bursts, interruptions, failed decodes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mullama.engines.base import ContextOptions, Ended, Piece
from mullama.engines.llamacpp.batcher import Pace
from mullama.engines.llamacpp.binding.context import DECODED, NativeBatch
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.errors import EngineFailed, Kind
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answer, answers, ask, sampling, user
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

OPTIONS = ContextOptions(size=512, parallel=4, threads=1)


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    return engine


@pytest.fixture
def paced(tiny_path: str, load: Callable[..., LlamaEngine]) -> Callable[..., LlamaEngine]:
    """An engine whose contexts have a pace with these settings."""

    def make(**settings: float) -> LlamaEngine:
        engine = load("llamacpp", tiny_path, pace=lambda: Pace(**settings))
        engine.open_context("main", OPTIONS)
        return engine

    return make


def one(engine: LlamaEngine, prompt: str, **changes: Any) -> Result:
    """A greedy answer that can be compared with another."""
    return answer(engine, prompt, logprobs=ALTERNATIVES, **changes)


def test_the_next_step_is_fast_only_while_all_answer(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(longest=math.inf)  # the result depends on no speed
    assert not engine.next_step_is_fast
    engine.submit(ask(1, user("Count from 1 to 20."), max_tokens=60))
    assert not engine.next_step_is_fast, "a prompt is to be computed"
    while not any(isinstance(output, Piece) for output in engine.step()):
        pass
    engine.step()
    assert engine.next_step_is_fast
    engine.submit(ask(2, user("Who are you?"), max_tokens=4))
    assert not engine.next_step_is_fast, "another prompt is to be computed"
    while any(not isinstance(output, Ended) for output in engine.step()) or engine.busy:
        pass
    assert not engine.next_step_is_fast


def test_a_burst_is_awaited_until_it_may_be_complete(paced: Callable[..., LlamaEngine]) -> None:
    """Prompts that have just come wait a moment for others, as long as there is room for them; one alone does not."""
    engine = paced(wait_share=math.inf, longest=3600.0)
    assert engine.batch_delay == 0.0
    answer(engine, user("Count from 1 to 20, and then from 20 to 1, and then once more."), max_tokens=2)
    for id in range(OPTIONS.parallel):
        assert engine.batch_delay == 0.0 if id < 2 else engine.batch_delay > 3000.0
        engine.submit(ask(id, user("Who are you?"), max_tokens=4))
    assert engine.batch_delay == 0.0, "no other could take part"
    engine.step()
    assert engine.batch_delay == 0.0, "all have begun"


def test_nothing_that_answers_is_held_for_prompts_to_come(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(wait_share=math.inf, longest=3600.0)
    driver = Driver(engine).submit(ask(1, user("Who are you?"), max_tokens=9))
    while not driver.results[1].text:
        driver.step()
    driver.submit(ask(2, user("How are you?"), max_tokens=2), ask(3, user("Where are you?"), max_tokens=2))
    assert engine.batch_delay == 0.0
    driver.run()


def test_what_is_in_memory_does_not_count_for_the_wait(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(wait_share=1e6, longest=math.inf)
    said = user("Count from 1 to 20, and then from 20 to 1, and then once more.")
    answer(engine, said, max_tokens=2)
    waits = []
    for id, prompt in enumerate((said, user("What can you tell me about the capital of France and its mayor?"))):
        engine.submit(ask(2 * id, prompt, max_tokens=1))
        engine.submit(ask(2 * id + 1, prompt, max_tokens=1))
        waits.append(engine.batch_delay)
        while engine.busy:
            engine.step()
    assert 0 < waits[0] < waits[1] / 3


def test_a_decode_that_has_just_begun_is_given_up_for_another_prompt(
    paced: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two are computed together then, and say what they say alone."""
    engine = paced(restart_share=math.inf, longest=3600.0)
    prompts = [user("Who are you?"), user("Count from 1 to 20, and then from 20 to 1, and then once more.")]
    alone = [one(engine, prompt, max_tokens=6, cache=False) for prompt in prompts]
    native, sizes, driver = engine._contexts["main"].native, [], Driver(engine)
    decode = native.decode

    def decode_while_another_comes(batch: NativeBatch) -> int:
        sizes.append(batch.count)
        if len(sizes) == 1:
            engine.announce_prompt("main")
            engine.announce_prompt("another context")
            driver.submit(ask(2, prompts[1], max_tokens=6, cache=False, logprobs=ALTERNATIVES))
        return decode(batch)

    monkeypatch.setattr(native, "decode", decode_while_another_comes)
    driver.submit(ask(1, prompts[0], max_tokens=6, cache=False, logprobs=ALTERNATIVES)).run()

    assert_same_answers(engine.facts, [driver.results[id] for id in (1, 2)], alone)
    assert sizes[1] > sizes[0], "the second decode takes both"
    assert [driver.results[id].ended.prompt_tokens for id in (1, 2)] == [sizes[0], sizes[1] - sizes[0]]


@pytest.mark.parametrize("why", ["old", "answering", "full"])
def test_no_other_decode_is_given_up_for_a_prompt(
    paced: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    engine = paced(restart_share=0.0 if why == "old" else math.inf, longest=3600.0)
    answer(engine, user("Count from 1 to 20, and then from 20 to 1, and then once more."), max_tokens=2)
    assert engine._contexts["main"]._pace.restart_window(16) > 0 or why == "old"
    driver = Driver(engine)
    if why == "answering":
        driver.submit(ask(9, user("Who are you?"), max_tokens=40))
        while not driver.results[9].text:
            driver.step()
    native, statuses = engine._contexts["main"].native, list[int]()
    decode = native.decode

    def decode_while_another_comes(batch: NativeBatch) -> int:
        engine.announce_prompt("main")
        statuses.append(decode(batch))
        return statuses[-1]

    monkeypatch.setattr(native, "decode", decode_while_another_comes)
    for id in range(OPTIONS.parallel if why == "full" else 1):
        driver.submit(ask(id, user("How are you?"), max_tokens=2, cache=False))
    driver.run()
    assert set(statuses) == {DECODED}


def test_a_long_prompt_never_stalls_a_running_answer(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """While a long prompt is computed, the running answer says something in every step."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, size=1024))
    driver = Driver(engine).submit(ask(1, user("Say something."), ignore_eos=True, max_tokens=400))
    driver.run(until=lambda: driver.results[1].count > 3)
    driver.submit(ask(2, "word " * 700, max_tokens=1))
    steps = 0
    while not driver.results[2].done:
        before = driver.results[1].count
        driver.step()
        steps += 1
        assert driver.results[1].count == before + 1
    assert steps >= 2
    assert [p.done for p in driver.results[2].progress] == sorted(p.done for p in driver.results[2].progress)


def test_several_choices_of_one_prompt_compute_it_once(engine: LlamaEngine) -> None:
    """The jobs of one request come together; the prompt is computed by the first, shared by the others."""
    prompt = "the cat sat on the mat. " * 20 + user("Tell me a story.")
    jobs = [ask(i, prompt, sampling=sampling(temperature=1.0, seed=i)) for i in range(4)]
    results = answers(engine, *jobs)
    total = results[0].begun
    assert total is not None
    computed = [r.begun.prompt_tokens - r.begun.cached_tokens for r in results if r.begun]
    assert computed == [total.prompt_tokens, 1, 1, 1]
    assert len({result.text for result in results}) > 1


def test_a_decode_that_fails_ends_its_requests_and_no_others(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = engine._contexts["main"].native
    good = native.decode

    def fails(batch: object) -> int:
        raise EngineFailed("llama_decode failed with -3")

    driver = Driver(engine).submit(ask(1, user("How are you?")))
    driver.step()
    monkeypatch.setattr(native, "decode", fails)
    driver.step()
    failed = driver.results[1].failed
    assert failed is not None
    assert failed.kind is Kind.UNAVAILABLE
    monkeypatch.setattr(native, "decode", good)
    assert answer(engine, user("How are you?")).text


def test_an_interrupt_ends_a_decode_that_computes_a_prompt(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """From another thread, while the native code runs; the work is done again, and the other answers lose nothing."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, size=1024))
    context = engine._contexts["main"]
    prompt = "the cat sat on the mat. " * 80 + user("How are you?")
    expected = answer(engine, prompt, max_tokens=5, cache=False).text
    aborted = []

    def interrupt() -> None:
        while not aborted:
            if context._interruptible:
                engine.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        driver, tries = Driver(engine), 0
        while not aborted and tries < 200:  # the other thread may get no turn while a prompt is computed
            tries += 1
            driver.submit(ask(tries, prompt, max_tokens=5, cache=False))
            while not aborted and not driver.results[tries].done:
                driver.step()
                if context._aborted:
                    aborted.append(True)
    finally:
        aborted.append(False)
        thread.join()
    assert aborted[0], "no decode was interrupted"
    engine.interrupt()
    assert driver.run()[tries].text == expected
