"""A pool that is too small for all requests: they are set aside and resumed, and answer as they do alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from mullama.chat.types import Constraint
from mullama.engines.base import ContextOptions, DraftOptions, Engine, Generate, PoolUse, Prefix
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.pool import CellPool
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask, user
from tests.engines.llamacpp.builders import BUILDERS
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

SYSTEM = "<|im_start|>system\nYou are a small model that answers in one short sentence and never more.<|im_end|>\n"
OPTIONS = ContextOptions(size=256, parallel=4, threads=1, batch=64, ubatch=64, pool=256)
WORDS = ("How are you?", "What is 3 plus 4?", "Who are you?", "Say something.", "Tell me a story.", "What is a model?")
PROMPTS = [user(f"{word} {'Hello. ' * 20}") for word in WORDS]


@pytest.fixture(autouse=True)
def hardly_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests begin with room for one token of their answers, so that short answers fill the pool."""
    monkeypatch.setattr("mullama.engines.llamacpp.pool.reserve_of", lambda _size: 1)


@pytest.fixture(params=["tiny", "llama in one pool", *BUILDERS])
def path(
    request: pytest.FixtureRequest,
    tiny_path: str,
    random_model: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The built-in model, and a random one of each kind of memory: plain, sliding window, recurrent.

    Plain memory has slots of its own where the system can give pages back, and one pool of cells elsewhere.
    """
    if request.param == "llama in one pool":
        monkeypatch.setattr("mullama.engines.llamacpp.open_context.can_page", lambda: False)
        return random_model("llama")
    return tiny_path if request.param == "tiny" else random_model(request.param)


def pool_of(engine: Engine) -> PoolUse:
    """The pool of the context `main`; an empty one where it has none."""
    none = PoolUse(context="main", size=0, used=0, set_aside=0, set_asides=0, resumes=0)
    return next((pool for pool in engine.stats().pools if pool.context == "main"), none)


def job(id: int, prompt: str, **changes: Any) -> Generate:
    return ask(id, prompt, **{"logprobs": ALTERNATIVES, **changes})


def alone(engine: Engine, jobs: list[Generate], options: ContextOptions = OPTIONS) -> list[Result]:
    """The answer to each job in a context of its own."""
    results = []
    for one in jobs:
        engine.open_context("alone", replace(options, parallel=1, pool=0, draft=None, prefixes=()))
        results += answers(engine, replace(one, context="alone"))
        engine.close_context("alone")
    return results


def recompute_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mullama.engines.llamacpp.pool.recompute", lambda *_: True)


@pytest.mark.parametrize("how", ["copied", "computed again"])
def test_requests_that_are_set_aside_answer_as_they_do_alone(
    path: str, how: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "computed again":
        recompute_all(monkeypatch)
    engine = load("llamacpp", path)
    jobs = [job(id, prompt) for id, prompt in enumerate(PROMPTS)]
    expected = alone(engine, jobs)
    facts = engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(*jobs)
    used = []
    while engine.busy:
        driver.step()
        used.append(engine.stats().cells_used)
    stats, pool = engine.stats(), pool_of(engine)
    if facts.pool:
        assert facts.pool == 256
        assert max(used) <= 256
        assert pool.set_asides > 0
        assert pool.resumes == pool.set_asides
    assert (pool.set_aside, stats.running, stats.waiting) == (0, 0, 0)
    assert_same_answers(engine.facts, [driver.results[one.id] for one in jobs], expected)
    for result in driver.results.values():
        assert result.events.count("Begun") == result.events.count("Ended") == 1
        assert "Prefilled" not in result.events[result.events.index("Piece") :], "the prompt is reported once"
        assert result.ended is not None


def count(engine: LlamaEngine) -> tuple[int, int, int]:
    stats = engine.stats()
    return pool_of(engine).set_aside, stats.running, stats.waiting


def until_aside(driver: Driver, most: int = 1000) -> None:
    """Step until a request is set aside."""
    for _ in range(most):
        if pool_of(driver.engine).set_aside:
            return
        driver.step()
    raise AssertionError("no request was set aside")


@pytest.fixture
def engine(random_model: Callable[[str], str], load: Callable[..., LlamaEngine]) -> LlamaEngine:
    """A plain random model, whose answers have all the tokens that they may have."""
    return load("llamacpp", random_model("llama"))


def test_the_youngest_is_set_aside_and_the_oldest_ends_first(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(*(job(id, prompt, max_tokens=90) for id, prompt in enumerate(PROMPTS[:3])))
    until_aside(driver)
    assert [c.id for c in engine._contexts["main"].aside] == [2]
    driver.submit(job(9, user("Hi"), max_tokens=1))
    driver.run(until=lambda: driver.results[9].begun is not None)
    assert driver.results[0].ended, "a short request does not overtake those that are set aside"
    assert not driver.results[2].ended
    driver.run()
    assert all(result.ended for result in driver.results.values())


def test_a_request_that_is_set_aside_can_be_cancelled(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(*(job(id, prompt, max_tokens=90) for id, prompt in enumerate(PROMPTS[:3])))
    until_aside(driver)
    engine.cancel(2)
    driver.run()
    ended = driver.results[2].ended
    assert ended is not None
    assert ended.reason == "cancelled"
    assert [driver.results[id].ended.reason for id in (0, 1)] == ["length", "length"]  # type: ignore[union-attr]
    pool = engine._contexts["main"].pool
    assert pool is not None
    assert (pool._bytes, pool.aside, engine.stats().sequences_busy) == (0, [], 0)


def test_a_context_with_requests_aside_can_be_closed(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(*(job(id, prompt, max_tokens=90) for id, prompt in enumerate(PROMPTS[:3])))
    until_aside(driver)
    engine.close_context("main")
    driver.run()
    assert {result.ended.reason for result in driver.results.values() if result.ended} == {"cancelled"}
    assert all(result.done for result in driver.results.values())


def test_idle_conversations_go_before_a_request_is_set_aside(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    answers(engine, job(1, PROMPTS[0]))
    held = engine.stats().cells_used
    assert held > 50
    answers(engine, *(job(id, prompt, max_tokens=30) for id, prompt in enumerate(PROMPTS[1:3])))
    assert pool_of(engine).set_asides == 0


def test_states_beyond_their_room_are_computed_again(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(id, prompt, max_tokens=90) for id, prompt in enumerate(PROMPTS)]
    expected = alone(engine, jobs)
    saved: list[int] = []
    engine.open_context("main", OPTIONS)
    pool = engine._contexts["main"].pool
    assert isinstance(pool, CellPool)
    save = pool._native.save
    monkeypatch.setattr(pool._native, "save", lambda sequence: saved.append(sequence) or save(sequence))
    monkeypatch.setattr(pool, "_most_bytes", 0)
    results = answers(engine, *jobs)
    assert pool_of(engine).resumes > 0
    assert not saved
    assert_same_answers(engine.facts, results, expected)


def test_a_state_that_is_not_taken_is_computed_again(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(id, prompt, max_tokens=90) for id, prompt in enumerate(PROMPTS[:3])]
    expected = alone(engine, jobs)
    engine.open_context("main", OPTIONS)
    native = engine._contexts["main"].native
    monkeypatch.setattr(native, "restore", lambda *_, **__: False)
    assert_same_answers(engine.facts, answers(engine, *jobs), expected)
    assert pool_of(engine).resumes > 0


@pytest.mark.usefixtures("guessing")
@pytest.mark.parametrize("kind", ["llama", "window", "recurrent"])
def test_guesses_are_given_up_before_a_request_is_set_aside(
    kind: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", random_model(kind))
    jobs = [job(id, prompt + " ab" * 8, max_tokens=60) for id, prompt in enumerate(PROMPTS[:4])]
    expected = alone(engine, jobs)
    engine.open_context("main", replace(OPTIONS, draft=DraftOptions(kind="ngram")))
    assert_same_answers(engine.facts, answers(engine, *jobs), expected)
    assert count(engine) == (0, 0, 0)


def test_constraints_and_declared_prefixes_stay(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """The pool has one request and what the prefix needs; each of them goes on where it was."""
    engine = load("llamacpp", tiny_path)
    constraint = Constraint(grammar="start: /[a-c]{40}/")
    jobs = [ask(id, SYSTEM + prompt, constraint=constraint, max_tokens=64) for id, prompt in enumerate(PROMPTS)]
    facts = engine.open_context("main", replace(OPTIONS, parallel=6, prefixes=(Prefix(text=SYSTEM),)))
    assert facts.pool > 256
    results = answers(engine, *jobs)
    assert pool_of(engine).set_asides > 0
    assert all(re.fullmatch("[a-c]{40}", result.text) for result in results)


def test_a_pool_for_the_worst_case_is_no_pool(engine: LlamaEngine) -> None:
    assert engine.open_context("main", replace(OPTIONS, pool=1024)).pool == 0
    assert engine.open_context("one", replace(OPTIONS, parallel=1)).pool == 0
    assert engine.open_context("small", replace(OPTIONS, pool=1)).pool == 256, "one request at least"
