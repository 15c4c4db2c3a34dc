"""Memory arithmetic: exact for weights and caches, within a few percent for compute buffers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.struct import replace
from mullama.weights.facts import LayerFacts, WeightFacts
from mullama.weights.memory import (
    ContextShape,
    WeightsPlacement,
    checkpoint_bytes,
    compute_bytes,
    context_cells,
    largest_context,
    layer_bytes,
    layer_devices,
    need,
)

MIB = 2**20


def model(
    *, layers: int = 32, heads: int = 32, kv_heads: int = 8, head: int = 128, width: int = 4096, forward: int = 14336,
    vocabulary: int = 128256, window: int = 0, slides: tuple[bool, ...] = (),
) -> WeightFacts:  # fmt: skip
    slides = slides or (False,) * layers
    return WeightFacts(
        architecture="llama", parameter_count=8 * 10**9, size_bytes=5 * 10**9, layers=layers, embedding_length=width,
        heads=(heads,), kv_heads=(kv_heads,), key_length=head, value_length=head, feed_forward=(forward,),
        train_context=131072, vocabulary=vocabulary, window=window, input_bytes=300 * MIB, output_bytes=400 * MIB,
        per_layer=tuple(
            LayerFacts(weights=100 * MIB, key=kv_heads * head, value=kv_heads * head, slides=s) for s in slides
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "context", "mebibytes"),
    [
        (model(), ContextShape(size=4096), 512),  # Llama 3.1 8B
        (model(layers=80, heads=64), ContextShape(size=4096), 1280),  # Llama 2 70B
        (model(layers=16, head=64), ContextShape(size=4096), 128),  # Llama 3.2 1B
        (model(layers=28, kv_heads=4), ContextShape(size=32768), 1792),  # Qwen2.5 7B
        (model(), ContextShape(size=4096, kv_k="q8_0", kv_v="q8_0"), 272),
        (model(), ContextShape(size=4096, kv_k="q4_0", kv_v="q4_0"), 144),
        (model(), ContextShape(size=4096, kv_k="q8_0", kv_v="f16"), 392),
        (model(), ContextShape(size=4096, kv_k="f32", kv_v="f32"), 1024),
        (model(), ContextShape(size=4096, parallel=4), 2048),
        (model(), ContextShape(), 16384),
    ],
)
def test_the_cache_of_known_models_is_exact(facts: WeightFacts, context: ContextShape, mebibytes: int) -> None:
    assert sum(layer_bytes(facts, context)) == mebibytes * MIB


def test_cells_come_in_steps_of_256() -> None:
    assert context_cells(ContextShape(size=1000), 8192) == 1024
    assert context_cells(ContextShape(size=100, parallel=3), 8192) == 512
    assert context_cells(ContextShape(), 8192) == 8192


def test_sliding_layers_hold_the_window_of_each_sequence_and_a_micro_batch() -> None:
    facts = model(layers=6, window=1024, slides=(True,) * 5 + (False,))
    sliding, full = layer_bytes(facts, ContextShape(size=32768, parallel=2))[0::5]
    per_cell = 2 * 1024 * 2
    assert sliding == (1024 * 2 + 512) * per_cell
    assert full == 65536 * per_cell
    assert layer_bytes(facts, ContextShape(size=256))[0] == 256 * per_cell
    assert layer_bytes(facts, ContextShape(size=32768, parallel=2, sequences=5))[0] == (1024 * 5 + 512) * per_cell


GEMMA = [
    # size, parallel, cache type, cache MiB, compute MiB
    (8192, 1, "f16", 13.0, 15.52),
    (2048, 4, "f16", 20.5, 17.02),
    (8192, 4, "q8_0", 23.64, 40.58),
]


def test_measured_models_with_windows_and_states_come_out_right() -> None:
    """What llama.cpp reported for small models of these shapes, with and without more sequences than requests."""
    slides = tuple(layer % 6 != 5 for layer in range(12))
    gemma = model(
        layers=12, heads=4, kv_heads=2, head=64, width=256, forward=768, vocabulary=3072, window=512, slides=slides
    )
    for size, parallel, kind, cache, compute in GEMMA:
        context = ContextShape(size=size, parallel=parallel, kv_k=kind, kv_v=kind, batch=2048)
        assert sum(layer_bytes(gemma, context)) / MIB == pytest.approx(cache, abs=0.01)
        assert compute * 0.995 <= compute_bytes(gemma, context) / MIB <= compute * 1.06


@pytest.mark.parametrize(
    ("facts", "context", "mebibytes"),
    [
        (model(), ContextShape(size=8192, parallel=8), 0),
        # a window of 1024 tokens in five of six layers: 20 MiB each
        (model(layers=6, kv_heads=4, window=1024, slides=(True,) * 5 + (False,)), ContextShape(size=8192), 16 * 10),
        (model(layers=6, window=1024, slides=(True,) * 5 + (False,)), ContextShape(size=8192), 256),
        (
            model(layers=6, window=1024, slides=(True,) * 5 + (False,)),
            ContextShape(size=8192, kv_k="q8_0"),
            16 * 15.3125,
        ),
        (model(layers=6, window=1024, slides=(True,) * 5 + (False,)), ContextShape(size=512), 16 * 10),
        (model(layers=6, window=1024, slides=(True,) * 5 + (False,)), ContextShape(size=8192, parallel=15), 16 * 20),
    ],
)
def test_checkpoints_hold_windows_and_at_least_one_of_each_request(
    facts: WeightFacts, context: ContextShape, mebibytes: float
) -> None:
    assert checkpoint_bytes(facts, context) == mebibytes * MIB


def test_checkpoints_are_in_main_memory() -> None:
    state = replace(model(), per_layer=tuple(replace(layer, state=2**18) for layer in model().per_layer))
    context = ContextShape(size=4096)
    kept = replace(context, checkpoints=checkpoint_bytes(state, context))
    assert kept.checkpoints == 256 * MIB
    shape = WeightsPlacement(gpu_layers=-1)
    assert need(state, shape, [kept]).ram == need(state, shape, [context]).ram + 256 * MIB
    assert need(state, shape, [kept]).gpus == need(state, shape, [context]).gpus


def test_a_model_without_attention_has_no_mask() -> None:
    recurrent = replace(model(layers=2), per_layer=(LayerFacts(weights=1, state=1000),) * 2)
    assert compute_bytes(recurrent, ContextShape(size=8192)) == compute_bytes(recurrent, ContextShape(size=65536))


def test_a_recurrent_state_is_kept_per_sequence_and_not_per_token() -> None:
    facts = replace(model(layers=2), per_layer=(LayerFacts(weights=1, state=1000), LayerFacts(weights=1)))
    assert layer_bytes(facts, ContextShape(size=4096, parallel=3)) == (12000, 0)
    assert layer_bytes(facts, ContextShape(size=65536, parallel=3)) == (12000, 0)


MEASURED = [
    # (vocabulary, width, layers, heads, kv heads, forward), (cells, sequences, batch, micro-batch, flash, type), MiB
    ((151936, 896, 24, 14, 2, 4864), (2048, 1, 512, 512, True, "f16"), 300.25),
    ((151936, 896, 24, 14, 2, 4864), (8192, 4, 512, 512, False, "f16"), 302.0),
    ((151936, 896, 24, 14, 2, 4864), (32768, 4, 2048, 512, True, "q8_0"), 302.0),
    ((151936, 896, 24, 14, 2, 4864), (8192, 1, 512, 128, True, "f16"), 75.06),
    ((151936, 896, 24, 14, 2, 4864), (8192, 8, 2048, 2048, False, "f16"), 1208.01),
    ((32000, 2048, 8, 32, 8, 8192), (2048, 1, 512, 512, True, "f16"), 70.5),
    ((32000, 2048, 8, 32, 8, 8192), (8192, 4, 512, 512, False, "f16"), 550.01),
    ((32000, 2048, 8, 32, 8, 8192), (32768, 4, 2048, 512, True, "q8_0"), 92.04),
    ((32000, 2048, 8, 32, 8, 8192), (8192, 8, 2048, 2048, False, "f16"), 2200.04),
    ((3072, 256, 6, 4, 2, 768), (8192, 4, 512, 512, True, "f16"), 14.51),
    ((3072, 256, 6, 4, 2, 768), (8192, 4, 512, 512, False, "f16"), 83.01),
    ((3072, 256, 6, 4, 2, 768), (32768, 4, 2048, 512, True, "q8_0"), 38.04),
]
"""Compute buffers that llama.cpp of llama-cpp-python 0.3.36 reported on the CPU for models of these shapes."""


@pytest.mark.parametrize(("shape", "context", "measured"), MEASURED)
def test_compute_buffers_are_estimated_within_six_percent_of_measured_ones(
    shape: tuple[int, ...], context: tuple[int, int, int, int, bool, str], measured: float
) -> None:
    vocabulary, width, layers, heads, kv_heads, forward = shape
    cells, sequences, batch, ubatch, flash, kind = context
    facts = model(
        layers=layers, heads=heads, kv_heads=kv_heads, head=width // heads, width=width, forward=forward,
        vocabulary=vocabulary,
    )  # fmt: skip
    asked = ContextShape(
        size=cells // sequences,
        parallel=sequences,
        batch=batch,
        ubatch=ubatch,
        flash="on" if flash else "off",
        kv_k=kind,
        kv_v=kind,
    )
    assert measured * 0.995 <= compute_bytes(facts, asked) / MIB <= measured * 1.06


def test_weights_are_where_the_layers_are_and_the_output_leaves_first() -> None:
    facts = model(layers=4)
    assert layer_devices(facts, WeightsPlacement()) == (None,) * 5
    assert layer_devices(facts, WeightsPlacement(gpu_layers=1)) == (None, None, None, None, 0)
    assert layer_devices(facts, WeightsPlacement(gpu_layers=3)) == (None, None, 0, 0, 0)
    assert layer_devices(facts, WeightsPlacement(gpu_layers=-1)) == (0,) * 5
    assert layer_devices(facts, WeightsPlacement(gpu_layers=99, devices=2)) == (0, 0, 0, 1, 1)
    assert layer_devices(facts, WeightsPlacement(gpu_layers=-1, devices=2, tensor_split=(3, 1))) == (0, 0, 0, 0, 1)
    assert layer_devices(facts, WeightsPlacement(gpu_layers=-1, devices=2, split="none", main_gpu=1)) == (1,) * 5
    some = need(facts, WeightsPlacement(gpu_layers=3), ())
    assert (some.weights_ram, some.weights_gpu) == (500 * MIB, 600 * MIB)


def test_tied_embeddings_are_there_twice_when_the_output_leaves() -> None:
    facts = replace(model(layers=4), tied=True)
    assert need(facts, WeightsPlacement(), ()).weights == 1100 * MIB
    everything = need(facts, WeightsPlacement(gpu_layers=-1), ())
    assert (everything.weights_ram, everything.weights_gpu) == (300 * MIB, 1100 * MIB)


def test_a_cache_lies_where_its_layers_lie() -> None:
    facts = model(layers=4)
    context = ContextShape(size=4096)
    half = need(facts, WeightsPlacement(gpu_layers=3), (context,))
    per_layer = layer_bytes(facts, context)[0]
    assert half.kv_ram == 2 * per_layer
    assert [gpu.kv for gpu in half.gpus] == [2 * per_layer]
    assert need(facts, WeightsPlacement(), (context, context)).kv == 8 * per_layer


def test_an_impossible_wish_is_refused() -> None:
    with pytest.raises(Invalid, match="'q9' is not a cache type"):
        need(model(), WeightsPlacement(), (ContextShape(kv_k="q9"),))
    with pytest.raises(Invalid, match="tensor_split"):
        need(model(), WeightsPlacement(gpu_layers=1, devices=2, tensor_split=(0, 0)), ())


@given(
    layers=st.integers(1, 40), gpu_layers=st.integers(-1, 50), devices=st.integers(0, 4),
    size=st.integers(1, 100_000), parallel=st.integers(1, 8),
)  # fmt: skip
def test_placement_moves_bytes_and_never_loses_any(
    layers: int, gpu_layers: int, devices: int, size: int, parallel: int
) -> None:
    facts, context = model(layers=layers), ContextShape(size=size, parallel=parallel)
    placed = need(facts, WeightsPlacement(gpu_layers=gpu_layers, devices=devices), (context,))
    at_home = need(facts, WeightsPlacement(), (context,))
    assert (placed.weights, placed.kv) == (at_home.weights, at_home.kv)
    assert placed.total >= placed.weights + placed.kv


@given(ram=st.integers(0, 40 * 2**30))
def test_the_largest_context_that_fits_fits_and_the_next_does_not(ram: int) -> None:
    facts, context = model(), ContextShape(parallel=2)
    size = largest_context(facts, WeightsPlacement(), context, ram)
    if size:
        assert need(facts, WeightsPlacement(), (replace(context, size=size),)).ram <= ram
    if size < facts.train_context:
        assert need(facts, WeightsPlacement(), (replace(context, size=size + 256),)).ram > ram
