"""Greedy answers of each class of architecture do not depend on batches, shared beginnings or earlier turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benches.real_models import GEMMA3, RANDOM, SMOLLM2, folder
from mullama.engines.base import Adapter, ContextOptions, Generate, Prefix
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.struct import replace
from tests.engines.engine_driver import Result, answers, ask
from tests.engines.llamacpp.builders import adapter
from tests.engines.near_tie import ALTERNATIVES, EXACT, assert_same_answers, rounding_of

pytestmark = pytest.mark.real

OPTIONS = ContextOptions(size=1024, parallel=4)
# Longer than gpt-oss's window of 128 tokens, so that its layers forget the beginning.
BEGINNING = "<|im_start|>system\n" + "The harbour keeps a book of every ship, its cargo and its master. " * 12
SUBJECTS = ("the price of salt", "a storm in the year 1807", "who may use the crane", "tides, and how to read them")
PROMPTS = [f"{BEGINNING}<|im_end|>\n<|im_start|>user\nTell me about {subject}." for subject in SUBJECTS]


@pytest.fixture(scope="module", params=[SMOLLM2.name, GEMMA3.name, *RANDOM.values()])
def engine(request: pytest.FixtureRequest, load: Callable[[str], LlamaEngine]) -> LlamaEngine:
    return load(request.param)


def job(id: int, prompt: str, most: int = 12) -> Generate:
    return ask(id, prompt, logprobs=ALTERNATIVES, max_tokens=most)


@pytest.fixture(scope="module")
def alone(engine: LlamaEngine) -> list[Result]:
    """The answer to each prompt in a context of its own, where nothing can be shared."""
    found = []
    for prompt in PROMPTS:
        engine.open_context("main", OPTIONS)
        found += answers(engine, job(1, prompt))
        engine.close_context("main")
    return found


@pytest.fixture
def open_main(engine: LlamaEngine) -> Iterator[Callable[[ContextOptions], None]]:
    yield lambda options: engine.open_context("main", options) and None
    engine.close_context("main")


def test_batched_answers_are_those_of_each_alone(
    engine: LlamaEngine, alone: list[Result], open_main: Callable[[ContextOptions], None]
) -> None:
    open_main(OPTIONS)
    together = answers(engine, *(job(i, prompt) for i, prompt in enumerate(PROMPTS)))
    assert_same_answers(engine.facts, together, alone)


def test_answers_over_a_declared_beginning_are_those_without(
    engine: LlamaEngine, alone: list[Result], open_main: Callable[[ContextOptions], None]
) -> None:
    open_main(replace(OPTIONS, prefixes=(Prefix(text=BEGINNING),)))
    together = answers(engine, *(job(i, prompt) for i, prompt in enumerate(PROMPTS)))
    assert_same_answers(engine.facts, together, alone)


def test_a_later_turn_is_answered_as_by_a_new_context(
    engine: LlamaEngine, alone: list[Result], open_main: Callable[[ContextOptions], None]
) -> None:
    """The earlier answer is part of the history once as it was, and once cut as a template cuts old reasoning."""
    open_main(OPTIONS)
    (first,) = answers(engine, job(1, PROMPTS[0]))
    histories = [f"{PROMPTS[0]}{said}<|im_end|>\nAnd then?" for said in (first.text, first.text[:12])]
    later = [answers(engine, job(2, history))[0] for history in histories]
    expected = []
    for history in histories:
        engine.close_context("main")
        engine.open_context("main", OPTIONS)
        expected += answers(engine, job(1, history))
    assert_same_answers(engine.facts, later, expected)


def test_a_conversation_continues_when_its_reasoning_is_stripped(
    engine: LlamaEngine, open_main: Callable[[ContextOptions], None]
) -> None:
    """Each turn begins near the begin of the last answer, and answers the same as from the first token."""
    open_main(OPTIONS)
    prompt, asked = f"{BEGINNING}<|im_end|>\n", 0
    shared: list[Result] = []
    whole: list[Result] = []
    for subject in SUBJECTS:
        prompt += f"<|im_start|>user\nTell me about {subject}.<|im_end|>\n<|im_start|>assistant\n"
        (result,) = answers(engine, job(1, prompt, 4))  # short: random experts have near ties early
        shared.append(result)
        whole += answers(engine, replace(job(1, prompt, 4), cache=False))
        assert result.begun is not None
        assert result.begun.cached_tokens >= asked - 100  # checkpoints are at least 64 tokens apart
        asked = result.begun.prompt_tokens
        prompt += f"{result.text[len(result.text) // 2 :]}<|im_end|>\n"
    assert_same_answers(engine.facts, shared, whole)


@pytest.fixture
def exact(engine: LlamaEngine) -> LlamaEngine:
    """Models with weights of 32 bits: random adapters magnify the rounding of quantised ones."""
    if rounding_of(engine.facts) != EXACT:
        pytest.skip("the weights are quantised")
    return engine


def test_a_kept_state_answers_as_the_computed_one(exact: LlamaEngine, tmp_path: Path) -> None:
    keeps = replace(OPTIONS, state_dir=str(tmp_path), state_key="k", keep_bytes=2**28)
    exact.open_context("main", keeps)
    answers(exact, replace(job(1, PROMPTS[0], 1), owner="ann"))
    exact.close_context("main")
    turn = replace(job(2, f"{PROMPTS[0]}<|im_end|>\n<|im_start|>user\nAnd then?"), owner="ann")

    exact.open_context("main", keeps)
    (read,) = answers(exact, turn)
    exact.close_context("main")
    exact.open_context("main", OPTIONS)
    (computed,) = answers(exact, turn)
    exact.close_context("main")

    assert read.begun is not None
    assert read.begun.cached_tokens > 150
    assert_same_answers(exact.facts, [read], [computed])


def test_requests_of_several_adapter_sets_answer_as_each_alone(
    exact: LlamaEngine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = request.node.callspec.params["engine"]
    if name == RANDOM["qwen35-nextn"]:
        pytest.skip("the adapter has a part for the layer that drafts, which is not loaded")
    weights = folder() / name
    adapter(tmp_path / "adapter.gguf", weights=weights)
    options = replace(OPTIONS, adapters=(Adapter(path=str(tmp_path / "adapter.gguf"), scale=1.0),))
    scales = ((0.0,), (1.0,), (0.5,), (1.0,))
    jobs = [replace(job(i, prompt, 8), scales=own) for i, (prompt, own) in enumerate(zip(PROMPTS, scales, strict=True))]
    exact.open_context("main", options)
    mixed = answers(exact, *jobs)
    exact.close_context("main")
    alone = []
    for one in jobs:
        exact.open_context("main", options)
        alone += answers(exact, one)
        exact.close_context("main")
    assert_same_answers(exact.facts, mixed, alone)
