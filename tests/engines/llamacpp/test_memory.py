"""The memory arithmetic from the header against the sizes that llama.cpp reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.plan.fit import as_made
from mullama.struct import replace
from mullama.weights.facts import WeightFacts
from mullama.weights.inspect import inspect
from mullama.weights.memory import ContextShape, MemoryNeed, WeightsPlacement, need
from tests.engines.engine_driver import answer, user

OPTIONS = ContextOptions(size=512, parallel=4, threads=1, flash="on")
SHAPES = {
    "plain": OPTIONS,
    "one": replace(OPTIONS, parallel=1),
    "large": replace(OPTIONS, size=1024, parallel=16),
    "small batch": replace(OPTIONS, batch=64, ubatch=64),
    "quantised cache": replace(OPTIONS, kv_k="q8_0", kv_v="q4_0"),
    "odd size": replace(OPTIONS, size=700, parallel=3),
}


def facts_of(path: str) -> WeightFacts:
    data = Path(path).read_bytes()
    return inspect([(lambda offset, length: data[offset : offset + length], len(data))])


def calculated_for(path: str, options: ContextOptions) -> MemoryNeed:
    """What the plan says of a context that is opened with these options."""
    asked = ContextShape(
        size=options.size, parallel=options.parallel, batch=options.batch, ubatch=options.ubatch, kv_k=options.kv_k,
        kv_v=options.kv_v,
    )  # fmt: skip
    facts = facts_of(path)
    made = as_made(asked, facts, vectors=options.embedding)
    return need(facts, WeightsPlacement(), [replace(made, checkpoints=0)])


@pytest.mark.parametrize("name", SHAPES)
def test_the_built_in_model_takes_what_was_calculated(
    name: str, memory: str, tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    """Slots need a smaller compute buffer than one pool, for which it is calculated."""
    engine = load("llamacpp", tiny_path)
    opened = engine.open_context("main", SHAPES[name])
    calculated = calculated_for(tiny_path, SHAPES[name])
    assert calculated.kv == pytest.approx(opened.kv_bytes, rel=0.01)
    assert calculated.weights == pytest.approx(engine.facts.weights_bytes, rel=0.02)
    assert opened.compute_bytes <= calculated.compute * 1.1 + 2**20
    if memory == "pool":
        assert calculated.compute == pytest.approx(opened.compute_bytes, rel=0.25, abs=2**20)


@pytest.mark.parametrize("kind", ["llama", "window", "recurrent", "hybrid", "hybrid window"])
def test_other_kinds_of_memory_take_what_was_calculated(
    kind: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    path = random_model(kind)
    engine = load("llamacpp", path)
    opened = engine.open_context("main", OPTIONS)
    calculated = calculated_for(path, OPTIONS)
    assert calculated.kv == pytest.approx(opened.kv_bytes, rel=0.02, abs=2**14)
    assert opened.compute_bytes <= calculated.compute * 1.1 + 2**20
    assert calculated.weights == pytest.approx(engine.facts.weights_bytes, rel=0.1)


@pytest.mark.parametrize("kind", ["llama", "window", "recurrent", "hybrid", "hybrid window"])
def test_the_checkpoints_of_other_kinds_of_memory_fit_into_what_was_calculated(
    kind: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """Sixteen of them; a state has a header of some hundred bytes and 16 bytes for each cell of a window."""
    path = random_model(kind)
    engine = load("llamacpp", path)
    engine.open_context("main", OPTIONS)
    made = as_made(ContextShape(size=512, parallel=4), facts_of(path))
    answer(engine, user("Tell me all that you know about it. " * 12), max_tokens=1)
    largest = engine._contexts["main"].cache.checkpoints.largest
    assert made.checkpoints / 16 == pytest.approx(largest, rel=0.15, abs=2000)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_context_for_vectors_takes_what_was_calculated(
    kind: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """Whatever `limits.parallel` says: it has the cells of one input."""
    options = replace(OPTIONS, embedding=True)
    opened = load("llamacpp", random_model(kind)).open_context("main", options)
    calculated = calculated_for(random_model(kind), options)
    assert calculated.kv == pytest.approx(opened.kv_bytes, rel=0.02, abs=2**14)
    assert opened.compute_bytes <= calculated.compute * 1.1 + 2**20
