"""What fits on a machine, and which choice is made where the manifest leaves it open."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.manifest.spec import Budget, Model
from mullama.manifest.tree import parse_resolved
from mullama.plan.fit import (
    DEFAULT_CONTEXT,
    Placement,
    as_made,
    beside_layers,
    context_shape,
    context_size,
    kept_placement,
    known_need,
    memory_bound,
    need,
    oversubscribed,
    placement,
    placement_problems,
    pool_tokens,
    room_for_both,
    too_large,
)
from mullama.plan.observed import Device, KnownFiles, Machine
from mullama.struct import replace
from mullama.weights.facts import LayerFacts, WeightFacts
from mullama.weights.memory import ContextShape

GIB = 1024**3
FACTS = WeightFacts(
    architecture="llama", parameter_count=10**9, size_bytes=10 * GIB, layers=10, embedding_length=1024, heads=(8,),
    kv_heads=(2,), train_context=32768, vocabulary=1000, per_layer=(LayerFacts(weights=GIB, key=256, value=256),) * 10,
)  # fmt: skip
CPU = Machine(ram_total=16 * GIB, ram_available=12 * GIB, cores=4)


def device(name: str, total: int, free: int, host: str = "") -> Device:
    return Device(name=name, total=total, free=free, host=host)


BIG = (device("A", 80 * GIB, 79 * GIB), device("B", 80 * GIB, 79 * GIB))
GPU = Machine(ram_total=64 * GIB, ram_available=60 * GIB, gpus=(device("A", 8 * GIB, 6 * GIB),), cores=4)
TWO = Machine(ram_total=64 * GIB, ram_available=60 * GIB, gpus=BIG, cores=4)


def model(**fields: Any) -> Model:
    return parse_resolved({"mullama": "v1", "models": {"a": {"from": "/m/a.gguf", **fields}}}).models["a"]


@pytest.mark.parametrize(
    ("said", "facts", "size"),
    [(4096, FACTS, 4096), (None, FACTS, DEFAULT_CONTEXT), (None, None, DEFAULT_CONTEXT)],
)
def test_the_context_is_as_said_or_bounded_by_the_default(said: int | None, facts: Any, size: int) -> None:
    desired = model(context={"size": said}) if said else model()

    assert context_size(desired, facts) == size


@pytest.mark.parametrize(
    ("layers", "machine", "found"),
    [
        ("all", CPU, Placement(layers=-1)),
        ("auto", CPU, Placement(layers=0)),
        (7, GPU, Placement(layers=7, devices=GPU.gpus)),
        ("auto", TWO, Placement(layers=-1, tensor_split=(80896.0, 80896.0), devices=BIG)),
        ({"0": 6, "1": 4}, TWO, Placement(layers=10, tensor_split=(6.0, 4.0), devices=BIG)),
        ({"1": 4}, TWO, Placement(layers=4, tensor_split=(0.0, 4.0), devices=BIG)),
    ],
)
def test_layers_become_a_count_and_shares(layers: Any, machine: Machine, found: Placement) -> None:
    assert placement(model(gpu={"layers": layers}), FACTS, machine) == found


def test_automatic_layers_leave_room_on_the_device() -> None:
    found = placement(model(), FACTS, GPU)

    assert found.layers == 6  # 5 GiB of weights, cache and buffers in 6 GiB, with headroom


def test_automatic_layers_leave_room_for_a_projector_and_a_draft_model() -> None:
    alone = placement(model(), FACTS, GPU).layers
    place = placement(model(), FACTS, GPU, projector=2 * GIB)
    assert place.layers == alone - 2  # of 1 GiB each

    assert beside_layers(model(), FACTS, place, None, 2 * GIB) == (2 * GIB,)

    drafter = replace(FACTS, per_layer=FACTS.per_layer[:3], layers=3)
    drafted = model(draft={"from": "./small.gguf"})
    place = placement(drafted, FACTS, GPU, drafter=drafter)
    assert place.layers <= alone - 3
    (count,) = beside_layers(drafted, FACTS, place, drafter, 0)
    assert count >= 3 * GIB


def test_a_placement_is_chosen_again_for_another_projector_or_draft_model() -> None:
    place = placement(model(), FACTS, GPU)
    assert kept_placement(model(), place, model(system="x"), GPU) == place
    for change in ({"mmproj": "none"}, {"draft": {"from": "./small.gguf"}}):
        assert kept_placement(model(), place, model(**change), GPU) is None


def test_a_layer_map_for_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(Invalid, match="names device 1; the model has 1 device"):
        placement(model(gpu={"layers": {"0": 1, "1": 1}}), FACTS, GPU)


def test_the_need_grows_with_context_and_parallel_requests() -> None:
    small, large = (need(model(context={"size": n}), FACTS, CPU) for n in (1024, 8192))
    wide = need(model(context={"size": 1024}, limits={"parallel": 8}), FACTS, CPU)

    assert small is not None
    assert large is not None
    assert wide is not None
    assert small.weights == large.weights >= 10 * GIB
    assert small.context < large.context
    assert small.context < wide.context
    assert need(model(), None, CPU) is None


WINDOWED = replace(FACTS, window=512)
RECURRENT = replace(FACTS, per_layer=(LayerFacts(weights=GIB, state=64),) * 10)


@pytest.mark.parametrize(
    ("said", "facts", "sequences", "outputs"),
    [
        ({}, FACTS, 5, 32),
        ({"limits": {"parallel": 40}}, FACTS, 41, 41),
        ({}, WINDOWED, 6, 32),
        ({"system": "Be brief."}, RECURRENT, 7, 32),
    ],
)
def test_a_context_has_the_sequences_and_rows_that_the_engine_adds(
    said: dict[str, Any], facts: WeightFacts, sequences: int, outputs: int
) -> None:
    """One more for a beginning that is computed, and where states cannot be shared, those that are kept."""
    shape = context_shape(model(**said), facts)

    assert (shape.sequences, shape.outputs) == (sequences, outputs)


@pytest.mark.parametrize(
    ("context", "used", "pool"),
    [
        ({}, 0, 8192),
        ({"pool": "worst_case"}, 3000, 0),
        ({"pool": 9000}, 0, 9000),
        ({"pool": 9000}, 3000, 9000),
        ({"pool": 32768}, 0, 0),  # four requests of 8192 tokens
        ({"pool": "auto"}, 0, 8192),  # a quarter
        ({"pool": "auto"}, 3000, 8192),  # one request at least
        ({"pool": "auto"}, 10_000, 12_544),  # a quarter more than was used
        ({"pool": "auto"}, 30_000, 0),
        ({"pool": "auto", "size": 1000}, 0, 1024),
    ],
)
def test_a_pool_is_as_said_or_as_used(context: dict[str, Any], used: int, pool: int) -> None:
    assert pool_tokens(model(context=context), FACTS, used) == pool


def test_a_pool_is_not_compared_with_the_size_of_weights_that_are_not_known() -> None:
    assert pool_tokens(model(context={"pool": 4096}), None) == 4096
    with pytest.raises(Invalid, match=r"context\.pool: a pool of 4096 tokens has no room"):
        pool_tokens(model(context={"pool": 4096}), FACTS)


def test_a_pool_is_for_models_that_keep_text_in_cells() -> None:
    assert pool_tokens(model(context={"pool": "auto"}, task="embedding"), FACTS) == 0
    assert pool_tokens(model(context={"pool": "auto"}), RECURRENT) == 0
    assert pool_tokens(model(context={"pool": "auto"}, limits={"parallel": 1}), FACTS) == 0


def test_a_pool_below_the_size_that_a_model_has_by_default_is_refused_with_its_field() -> None:
    desired = parse_resolved({"mullama": "v1", "models": {"a": {"from": "/m/a.gguf", "context": {"pool": 8000}}}})
    files = {"/m/a.gguf": KnownFiles(source="/m/a.gguf", facts=FACTS)}

    ((path, message, hint),) = placement_problems(desired, files, CPU)

    assert path == "models.a.context.pool"
    assert message == "a pool of 8000 tokens has no room for one request, which may have 8192"
    assert hint == "a larger pool, or a smaller context.size"
    assert need_or_none(desired.models["a"]) is None


def need_or_none(desired: Model) -> Any:
    return known_need(desired, FACTS, CPU)


def test_a_pool_needs_the_memory_of_its_tokens_and_of_requests_that_are_set_aside() -> None:
    worst, scarce = (need(model(context={"pool": pool}), FACTS, CPU) for pool in ("worst_case", 8192))
    assert worst is not None
    assert scarce is not None
    cells = 10 * 2 * 256 * 2  # bytes of a cell: keys and values of 10 layers
    saved = 32768 * cells - 8192 * cells * 5 // 4

    assert saved <= worst.context - scarce.context <= saved * 1.2  # compute buffers are smaller, too
    prefixed = need(model(context={"pool": 8192}, system="x" * 4096), FACTS, CPU)
    assert prefixed is not None
    assert prefixed.context >= scarce.context + 1024 * cells


def test_rows_of_logits_are_not_counted_for_every_token_of_a_batch() -> None:
    wide = replace(FACTS, vocabulary=152_000)

    found = need(model(context={"size": 1024, "batch": 2048}), wide, CPU)

    assert found is not None
    assert found.context < GIB  # 2048 rows would be 1.2 GB by themselves


@pytest.mark.parametrize(("causal", "ubatch"), [(True, 512), (False, 2048)])
def test_a_context_for_vectors_has_the_cells_of_one_input(causal: bool, ubatch: int) -> None:
    desired = model(task="embedding", context={"size": 2048}, limits={"parallel": 16})

    shape = context_shape(desired, replace(FACTS, causal=causal))

    assert (shape.size, shape.parallel, shape.sequences, shape.batch, shape.ubatch) == (2048, 1, 64, 2048, ubatch)


def test_a_context_of_no_size_is_as_long_as_the_trained_one() -> None:
    assert as_made(ContextShape(), FACTS, vectors=True).size == FACTS.train_context


def test_two_fit_beside_each_other_or_not() -> None:
    wanted = need(model(), FACTS, CPU)
    assert wanted is not None

    assert room_for_both(wanted, heavy=True, machine=CPU)
    assert room_for_both(wanted, heavy=False, machine=Machine(ram_total=GIB, ram_available=wanted.context))
    assert not room_for_both(wanted, heavy=True, machine=Machine(ram_total=GIB, ram_available=GIB))


@pytest.mark.parametrize(
    ("budget", "machine", "bound"),
    [
        (Budget(), CPU, 16 * GIB),
        (Budget(ram="50%"), CPU, 8 * GIB),
        (Budget(ram=2 * GIB, reserve=GIB), CPU, GIB),
        (Budget(), GPU, 72 * GIB),
        (Budget(gpu={"0": 2 * GIB}), GPU, 66 * GIB),
        (Budget(), None, None),
        (Budget(), Machine(), None),
    ],
)
def test_the_bound_is_the_budget_or_the_machine(budget: Budget, machine: Machine | None, bound: int | None) -> None:
    assert memory_bound(budget, machine) == bound


def test_what_is_too_large_is_told_with_the_numbers_and_what_would_fit() -> None:
    desired = model(context={"size": 32768, "pool": "worst_case"}, limits={"parallel": 64})

    told = too_large("a", desired, FACTS, Budget(ram=11 * GIB), CPU)

    assert told is not None
    assert "may use 11.00 GiB" in told
    assert "a context.size of" in told
    assert too_large("a", model(), FACTS, Budget(), CPU) is None
    never = too_large("a", desired, FACTS, Budget(ram=GIB), CPU)
    assert never is not None
    assert "no context of any size" in never


@pytest.mark.parametrize("pool", ["auto", "worst_case", 262144])
def test_a_context_of_the_size_that_is_advised_fits(pool: str | int) -> None:
    desired = model(context={"size": 65536, "pool": pool}, limits={"parallel": 64})
    bound = Budget(ram=11 * GIB)

    reason = too_large("a", desired, FACTS, bound, CPU)

    assert reason is not None
    advised = re.search(r"a context\.size( and a context\.pool)? of (\d+) would fit", reason)
    assert advised is not None
    assert bool(advised[1]) == isinstance(pool, int)
    found = int(advised[2])
    for size in (found, found + 512):
        smaller = model(context={"size": size, "pool": size if advised[1] else pool}, limits={"parallel": 64})
        fits = size == found or found == FACTS.train_context
        assert (too_large("a", smaller, FACTS, bound, CPU) is None) == fits


ELSEWHERE = {"from": "/m/b.gguf"}
MANY = {"context": {"size": 65536, "pool": "worst_case"}, "limits": {"parallel": 16}}


@pytest.mark.parametrize(
    ("models", "budget", "machine", "crowds"),
    [
        pytest.param({"a": {}}, {}, CPU, False, id="one that fits"),
        pytest.param({"a": {}, "b": ELSEWHERE}, {}, CPU, True, id="two that do not fit together"),
        pytest.param({"a": {}, "b": ELSEWHERE}, {}, GPU, False, id="two that do"),
        pytest.param({"a": {}, "b": {}}, {}, CPU, False, id="two over the same weights"),
        pytest.param({"a": {}, "b": MANY}, {}, CPU, True, id="a large context over the same weights"),
        pytest.param({"a": {}, "b": {**ELSEWHERE, "residency": {"load": "on_demand"}}}, {}, CPU, False, id="on demand"),
        pytest.param({"a": {}, "b": {**ELSEWHERE, "residency": {"ttl": 60}}}, {}, CPU, False, id="one that goes"),
        pytest.param({"a": {}, "b": {**ELSEWHERE, "residency": {"ttl": "never"}}}, {}, CPU, True, id="never goes"),
        pytest.param({"a": {}, "b": {"from": "hf:x/y"}}, {}, CPU, False, id="one that nobody knows yet"),
        pytest.param({"a": {}}, {"ram": "4GiB"}, CPU, True, id="less than the budget"),
        pytest.param({"a": {}, "b": ELSEWHERE}, {}, None, False, id="a machine that nobody knows"),
    ],
)
def test_models_that_stay_must_fit_together(
    models: dict[str, Any], budget: dict[str, Any], machine: Machine | None, crowds: bool
) -> None:
    tree = {name: {"from": "/m/a.gguf", **fields} for name, fields in models.items()}
    desired = parse_resolved({"mullama": "v1", "models": tree, "hardware": {"budget": budget}})
    digests = {"/m/a.gguf": "sha256:" + "a" * 64, "/m/b.gguf": "sha256:" + "b" * 64}
    files = {source: KnownFiles(source=source, digest=digest, facts=FACTS) for source, digest in digests.items()}
    told = oversubscribed(desired, files, machine)
    assert (told is not None) == crowds
    if told is not None:
        assert "GiB" in told
        assert all(name in told for name in models)


def test_a_crowd_is_told_by_the_names_that_are_counted_and_not_by_all_of_many() -> None:
    tree = {f"m{i}": {"from": f"/m/{i}.gguf"} for i in range(20)} | {"unknown": {"from": "hf:x/y"}}
    files = {f"/m/{i}.gguf": KnownFiles(source="", digest=f"sha256:{i:064}", facts=FACTS) for i in range(20)}
    told = oversubscribed(parse_resolved({"mullama": "v1", "models": tree}), files, CPU)
    assert told is not None
    assert "m0, m1," in told
    assert "and 12 more" in told
    assert "unknown" not in told


def test_a_gpu_that_is_not_here_any_more_does_not_end_the_plan() -> None:
    tree = {"a": {"from": "/m/a.gguf", "gpu": {"layers": {"0": 4, "1": 4}}}}
    files = {"/m/a.gguf": KnownFiles(source="/m/a.gguf", digest="sha256:" + "a" * 64, facts=FACTS)}
    assert oversubscribed(parse_resolved({"mullama": "v1", "models": tree}), files, GPU) is None
