"""The text of a decode is written while the next one computes, where decodes compute after they are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mullama.chat.types import Constraint
from mullama.engines.base import ContextOptions, Generate
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.overlap import Overlap
from tests.engines.engine_driver import Driver, Result, answers, ask, sampling, user

OPTIONS = ContextOptions(size=512, parallel=6, threads=1)


def test_a_device_that_computes_within_the_call_hides_nothing() -> None:
    overlap = Overlap()
    for _ in range(100):
        overlap.observe(accepted=0.02, computed=0.0201)
        assert not overlap.pays


def test_a_device_that_computes_after_the_call_hides_the_text() -> None:
    overlap = Overlap()
    for _ in range(5):
        overlap.observe(accepted=0.001, computed=0.01)
    assert overlap.pays
    for _ in range(5):
        overlap.observe(accepted=0.009, computed=0.01)
    assert not overlap.pays


def test_a_clock_that_stands_still_changes_nothing() -> None:
    overlap = Overlap()
    overlap.observe(accepted=0.0, computed=0.0)
    assert not overlap.pays


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    return engine


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decode that only continues answers is left to compute, as on a GPU."""
    monkeypatch.setattr(Overlap, "pays", True)


def jobs() -> list[Generate]:
    return [
        ask(1, user("Who are you?"), max_tokens=30),
        ask(2, user("How are you?"), sampling=sampling(seed=7, temperature=1.5), details=True, max_tokens=20),
        ask(3, user("Tell me a story."), sampling=sampling(seed=8), logprobs=2, max_tokens=12),
        ask(4, user("Name a colour."), stop=("e", "blue"), max_tokens=30),
        ask(5, user("Hi"), constraint=Constraint(grammar='start: "a" /[b-z ]{3,9}/ "."'), max_tokens=30),
        ask(6, user("Hello"), ignore_eos=True, want_tokens=True, progress=True, max_tokens=25),
    ]


def facts(result: Result) -> tuple[Any, ...]:
    """What of a result does not depend on the clock."""
    assert result.ended is not None
    end = result.ended
    logprobs = [(entry.id, entry.text, len(entry.top)) for entry in result.logprobs]
    tokens = [details.tokens for details in result.details]
    return result.text, result.count, result.events, logprobs, tokens, end.reason, end.stop, end.tokens, end.held_tokens


def test_answers_and_the_order_of_their_events_are_the_same(
    tiny_path: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for pays in (False, True):
        monkeypatch.setattr(Overlap, "pays", pays)
        engine = load("llamacpp", tiny_path)
        engine.open_context("main", OPTIONS)
        found.append([facts(result) for result in answers(engine, *jobs())])
    assert found[0] == found[1]


@pytest.mark.usefixtures("ahead")
def test_text_is_returned_while_the_next_decode_computes(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    native, log = engine._contexts["main"].native, []
    decode, synchronize = native.decode, native.synchronize
    monkeypatch.setattr(native, "decode", lambda batch: (log.append("decode"), decode(batch))[1])
    monkeypatch.setattr(native, "synchronize", lambda: (log.append("wait"), synchronize()))
    driver = Driver(engine).submit(ask(1, user("Who are you?"), ignore_eos=True, max_tokens=5))
    while engine.busy:
        log += [type(output).__name__ for output in driver.step()]
    assert log == [
        *("decode", "wait", "Begun", "Piece"),  # the prompt
        "decode",
        *("wait", "decode", "Piece") * 3,
        *("wait", "Piece", "Ended"),
    ]


@pytest.mark.usefixtures("ahead")
def test_a_cancelled_request_has_the_text_of_every_token_before_its_end(engine: LlamaEngine) -> None:
    driver = Driver(engine).submit(ask(1, user("Tell me a story."), ignore_eos=True), ask(2, user("Hi"), max_tokens=9))
    driver.run(until=lambda: driver.results[1].count >= 3)
    engine.cancel(1)
    result = driver.run()[1]
    assert result.ended is not None
    assert result.ended.reason == "cancelled"
    assert result.ended.completion_tokens == result.count
    assert driver.results[2].done
    assert engine.stats().sequences_busy == 0


@pytest.mark.usefixtures("ahead")
def test_a_context_is_closed_while_a_decode_computes(engine: LlamaEngine) -> None:
    driver = Driver(engine).submit(*jobs())
    driver.run(until=lambda: engine._contexts["main"]._ahead is not None)
    engine.close_context("main")
    results = driver.run()
    assert all(result.done for result in results.values())
    assert not engine.busy


@pytest.mark.usefixtures("ahead")
def test_a_text_that_cannot_be_written_ends_its_request_alone(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(engine).submit(ask(1, user("Hi"), ignore_eos=True), ask(2, user("Who are you?"), max_tokens=12))
    driver.run(until=lambda: driver.results[1].count >= 3)

    outputs = RunningCompletion.outputs

    def fails(completion: RunningCompletion, *arguments: Any) -> Any:
        if completion.id == 1:
            raise ValueError("odd")
        return outputs(completion, *arguments)

    monkeypatch.setattr(RunningCompletion, "outputs", fails)
    results = driver.run()
    assert results[1].failed is not None
    assert results[2].ended is not None
    assert results[2].count == results[2].ended.completion_tokens
    assert engine.stats().sequences_busy == 0


def test_the_cpu_leaves_no_decode_to_compute(engine: LlamaEngine) -> None:
    answers(engine, ask(1, user("Hi"), ignore_eos=True))
    assert not engine._contexts["main"]._overlap.pays
