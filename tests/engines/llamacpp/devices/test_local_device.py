"""The first device of this machine, such as a GPU or Mesa's software device; skipped where llama.cpp lists none."""

from __future__ import annotations

import pytest

from mullama.engines.base import ContextOptions, LayerFit, WeightsOptions
from mullama.engines.llamacpp.binding.devices import NativeDevice, local_devices
from mullama.engines.llamacpp.engine import load
from mullama.weights.memory import ContextShape
from tests.engines.engine_driver import answers, ask, user
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers


@pytest.fixture
def device() -> NativeDevice:
    found = local_devices()
    if not found:
        pytest.skip("llama.cpp lists no device of this machine")
    return found[0]


def test_all_layers_on_the_device_answer_as_on_the_cpu(device: NativeDevice, tiny_path: str) -> None:
    fit = LayerFit(shape=ContextShape(size=256, sequences=2, outputs=32))
    away = load((tiny_path,), WeightsOptions(gpu_layers=-1, devices=(device.name,), fit=fit), lambda share: True)
    here = load((tiny_path,), WeightsOptions(), lambda share: True)
    try:
        assert [(use.device, use.layers) for use in away.facts.placed] == [(device.name, 8)]
        results = []
        for engine in (here, away):
            engine.open_context("main", ContextOptions(size=256))
            results.append(answers(engine, ask(1, user("How are you?"), logprobs=ALTERNATIVES, max_tokens=12)))
        assert_same_answers(here.facts, *results)
    finally:
        away.close()
        here.close()
