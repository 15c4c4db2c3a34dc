"""The arithmetic from the header against what llama.cpp then says it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.context import rows_wanted
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.weights.facts import WeightFacts
from mullama.weights.inspect import inspect
from mullama.weights.memory import ContextShape, Shape, need

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


def shape_of(options: ContextOptions) -> ContextShape:
    return ContextShape(
        size=options.size, parallel=options.parallel, batch=options.batch, ubatch=options.ubatch, kv_k=options.kv_k,
        kv_v=options.kv_v, outputs=max(rows_wanted(options), options.parallel + 1),
    )  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_the_built_in_model_takes_what_was_calculated(
    name: str, memory: str, tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    """Slots need a smaller compute buffer than one pool, for which it is calculated."""
    engine = load("llamacpp", tiny_path)
    opened = engine.open_context("main", SHAPES[name])
    calculated = need(facts_of(tiny_path), Shape(), [shape_of(SHAPES[name])])
    assert calculated.kv == pytest.approx(opened.kv_bytes, rel=0.01)
    assert calculated.weights == pytest.approx(engine.facts.weights_bytes, rel=0.02)
    assert opened.compute_bytes <= calculated.compute * 1.1 + 2**20
    if memory == "pool":
        assert calculated.compute == pytest.approx(opened.compute_bytes, rel=0.25, abs=2**20)


@pytest.mark.parametrize("kind", ["llama", "window", "recurrent"])
def test_other_kinds_of_memory_take_what_was_calculated(
    kind: str, made: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    path = made(kind)
    engine = load("llamacpp", path)
    opened = engine.open_context("main", OPTIONS)
    low = need(facts_of(path), Shape(), [shape_of(OPTIONS)])
    high = low
    if not engine.facts.can_share:  # two more states: a beginning that is computed, and the last one that ended
        high = need(facts_of(path), Shape(), [replace(shape_of(OPTIONS), parallel=OPTIONS.parallel + 2)])
    assert low.kv * 0.98 - 2**14 <= opened.kv_bytes <= high.kv * 1.02 + 2**14
    assert low.weights == pytest.approx(engine.facts.weights_bytes, rel=0.1)
