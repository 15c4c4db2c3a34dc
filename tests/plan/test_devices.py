"""The devices of a model: names, order, budgets, and what is placed on each."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.manifest.spec import Budget, Gpu, Manifest, Model
from mullama.manifest.tree import parse_resolved, revision
from mullama.plan.devices import device_bound, find_devices, usable_devices, within_budget
from mullama.plan.fit import Placement, kept_placement, layers_without_device, need, placement, placement_problems
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, Device, KnownFiles, Machine, Observed
from mullama.plan.steps import Action
from mullama.struct import replace
from mullama.weights.experts import EXPERTS, expert_layers, expert_patterns, holds_experts
from mullama.weights.facts import Experts, LayerFacts, WeightFacts

GIB, MIB = 1024**3, 1024**2
FIRST = Device(name="CUDA0", total=24 * GIB, free=20 * GIB, ids=("0000:c1:00.0", "GPU-5f3a"))
SECOND = Device(name="CUDA1", total=8 * GIB, free=8 * GIB, ids=("0000:c2:00.0",))
LENT = Device(name="RPC0", total=16 * GIB, free=16 * GIB, host="10.0.0.2:50052")
AGAIN = replace(LENT, name="RPC1", number=1)
GONE = Device(name="RPC2", host="10.0.0.3:50052", fault="it does not answer")
ALL = (FIRST, SECOND, LENT, AGAIN, GONE)
MACHINE = Machine(ram_total=64 * GIB, ram_available=60 * GIB, gpus=ALL)
DENSE = WeightFacts(
    architecture="llama", parameter_count=1, size_bytes=10 * GIB, layers=10, embedding_length=64, train_context=4096,
    vocabulary=100, per_layer=(LayerFacts(weights=GIB, key=16, value=16),) * 10,
)  # fmt: skip
# Two dense layers, then eight of 1 GiB with experts of 900 MiB each.
MIXED = replace(
    DENSE, experts=Experts(count=8, used=2, feed_forward=64),
    per_layer=(LayerFacts(weights=GIB, key=16, value=16),) * 2
    + (LayerFacts(weights=GIB, experts=900 * MIB, key=16, value=16),) * 8,
)  # fmt: skip


def model(**gpu: Any) -> Model:
    tree = {"from": "/m/a.gguf", "gpu": gpu, "context": {"size": 1024}, "limits": {"parallel": 1}}
    return parse_resolved({"mullama": "v1", "models": {"a": tree}}).models["a"]


def machine(*devices: Device) -> Machine:
    return Machine(ram_total=64 * GIB, ram_available=60 * GIB, gpus=devices)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("CUDA1", (SECOND,)),
        ("cuda1", (SECOND,)),
        ("GPU-5F3A", (FIRST,)),
        ("0000:c2:00.0", (SECOND,)),
        ("c2:00.0", (SECOND,)),
        ("RPC1", (AGAIN,)),
        ("10.0.0.2:50052", (LENT, AGAIN)),
        ("10.0.0.2:50052/1", (AGAIN,)),
        ("CUDA2", ()),
        ("10.0.0.9:50052", ()),
    ],
)
def test_a_device_is_found_by_each_of_its_names(name: str, found: tuple[Device, ...]) -> None:
    assert find_devices(name, ALL) == found


@pytest.mark.parametrize(
    ("gpu", "names"),
    [
        ({}, "RPC0 RPC1 CUDA0 CUDA1"),  # other hosts first: the output stays here
        ({"layers": {"0": 1, "2": 3}}, "CUDA0 CUDA1 RPC0 RPC1"),  # numbers are those of the machine
        ({"tensor_split": [1, 1]}, "CUDA0 CUDA1 RPC0 RPC1"),
        ({"main": 1}, "CUDA0 CUDA1 RPC0 RPC1"),
        ({"devices": ["CUDA1", "RPC0"]}, "CUDA1 RPC0"),
        ({"devices": ["RPC2"]}, "RPC2"),  # named, so it is waited for
        ({"devices": ["10.0.0.2:50052", "RPC1"]}, "RPC0 RPC1"),
    ],
)
def test_the_order_of_devices(gpu: dict[str, Any], names: str) -> None:
    assert " ".join(d.name for d in usable_devices(Gpu(**gpu), MACHINE)) == names


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match="no device 'CUDA7'") as refused:
        usable_devices(Gpu(devices=("CUDA0", "CUDA7")), MACHINE)

    assert "CUDA0" in refused.value.hint
    assert "RPC0 (10.0.0.2:50052)" in refused.value.hint
    with pytest.raises(Invalid) as refused:
        usable_devices(Gpu(devices=("CUDA0",)), Machine())
    assert "no devices" in refused.value.hint


@pytest.mark.parametrize(
    ("budget", "bounds"),
    [
        ({}, (24 * GIB, 8 * GIB, 16 * GIB)),
        ({"0": "50%"}, (12 * GIB, 8 * GIB, 16 * GIB)),
        ({"CUDA1": 2 * GIB, "rpc0": "25%"}, (24 * GIB, 2 * GIB, 4 * GIB)),
        ({"10.0.0.2:50052": GIB}, (24 * GIB, 8 * GIB, GIB)),
        ({"GPU-5f3a": 0}, (0, 8 * GIB, 16 * GIB)),
    ],
)
def test_a_budget_names_a_device_by_number_or_name(budget: dict[str, Any], bounds: tuple[int, ...]) -> None:
    found = tuple(device_bound(d, n, Budget(gpu=budget)) for n, d in enumerate((FIRST, SECOND, LENT)))

    assert found == bounds


def test_free_memory_is_bounded_by_the_budget() -> None:
    found = within_budget(MACHINE, Budget(gpu={"0": 4 * GIB}))

    assert [d.free for d in found.gpus[:2]] == [4 * GIB, 8 * GIB]
    assert found.gpus[0].total == 24 * GIB


@pytest.mark.parametrize(
    ("gpu", "facts", "devices", "layers", "experts"),
    [
        ({}, DENSE, (FIRST,), -1, 0),
        ({}, DENSE, (SECOND,), 8, 0),  # seven of 1 GiB and the output: 512 MiB stay free
        ({}, DENSE, (replace(SECOND, free=0),), 0, 0),
        ({"layers": "all"}, DENSE, (SECOND,), -1, 0),
        ({"layers": 3}, DENSE, (SECOND,), 3, 0),
        ({}, MIXED, (FIRST,), -1, 0),
        ({}, MIXED, (SECOND,), -1, 3),  # 10 GiB less three times 900 MiB
        ({"experts": "all"}, MIXED, (SECOND,), -1, -1),
        ({"experts": 1}, MIXED, (SECOND,), 9, 1),
        ({"layers": 9}, MIXED, (SECOND,), 9, 1),
        ({}, MIXED, (replace(SECOND, free=2 * GIB),), 9, -1),
        ({}, MIXED, (replace(SECOND, free=700 * MIB),), 6, -1),
        ({"devices": ["RPC2"]}, DENSE, (GONE,), -1, 0),
    ],
)
def test_automatic_layers_and_experts(
    gpu: dict[str, Any], facts: WeightFacts, devices: tuple[Device, ...], layers: int, experts: int
) -> None:
    found = placement(model(**gpu), facts, machine(*devices))

    assert (found.layers, found.experts) == (layers, experts)


def test_shares_follow_the_free_memory() -> None:
    found = placement(model(layers="all"), DENSE, machine(FIRST, SECOND))

    assert found == Placement(layers=-1, tensor_split=(20480.0, 8192.0), devices=(FIRST, SECOND))


def test_without_a_split_one_device_is_used() -> None:
    assert placement(model(split="none", main=1), DENSE, machine(FIRST, SECOND)).devices == (SECOND,)


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        ({"main": 2}, "gpu.main is 2; the model has 2 devices"),
        ({"tensor_split": [1, 1, 1]}, "gpu.tensor_split has 3 shares; the model has 2 devices"),
        ({"layers": {"2": 1}}, "gpu.layers names device 2; the model has 2 devices"),
        ({"experts": 9}, "gpu.experts is 9, and the model has 8 layers with experts"),
    ],
)
def test_numbers_beyond_the_devices_and_experts_are_refused(gpu: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        placement(model(**gpu), MIXED, machine(FIRST, SECOND))


def test_a_split_of_tensors_is_a_problem_where_there_is_no_device() -> None:
    tree = {"from": "/m/a.gguf", "gpu": {"split": "tensor"}}
    desired = parse_resolved({"mullama": "v1", "models": {"a": tree}})

    ((field, message, hint),) = placement_problems(desired, {}, machine())
    assert (field, message) == ("models.a.gpu.split", "gpu.split is tensor, and the model has no device")
    assert "this machine has no devices" in hint
    assert not [*placement_problems(desired, {}, machine(FIRST))]


@pytest.mark.parametrize(
    ("layers", "refused"), [("all", True), (5, True), ({"0": 3}, True), ("auto", False), (0, False), ({"0": 0}, False)]
)
def test_layers_for_a_device_are_a_problem_where_there_is_none(layers: object, refused: bool) -> None:
    desired = parse_resolved({"mullama": "v1", "models": {"a": {"from": "/m/a.gguf", "gpu": {"layers": layers}}}})

    found = [*placement_problems(desired, {}, machine())]
    assert [path for path, _, _ in found] == ["models.a.gpu.layers"] * refused
    assert all("all layers stay in main memory" in message for _, message, _ in found)
    assert not [*placement_problems(desired, {}, machine(FIRST))]

    warning = layers_without_device(desired, machine(GONE))
    assert (warning is not None) is refused
    assert warning is None or warning.startswith("gpu.layers of a: ")
    assert layers_without_device(desired, machine(FIRST)) is None
    assert layers_without_device(desired, None) is None


def test_a_plan_warns_of_layers_without_a_device_where_the_machine_is_the_servers() -> None:
    desired = parse_resolved({"mullama": "v1", "models": {"a": {"from": "/m/a.gguf", "gpu": {"layers": "all"}}}})
    applied = Applied(manifest=desired, revision=revision(desired), generation=1)
    there = Observed(applied=applied, live={}, machine=machine())

    (warning,) = make_plan(desired, there).warnings
    assert "all layers stay in main memory" in warning
    assert make_plan(desired, replace(there, live=None)).warnings == ()


def test_experts_of_a_model_without_any_are_refused() -> None:
    with pytest.raises(Invalid, match="the model has no experts"):
        placement(model(experts=1), DENSE, machine(FIRST))


def test_the_need_names_the_devices() -> None:
    split = need(model(layers={"0": 5, "1": 6}), DENSE, machine(FIRST, SECOND))
    assert split is not None
    assert [name for name, _, _ in split.devices] == ["CUDA0", "CUDA1"]
    assert [weights // GIB for _, weights, _ in split.devices] == [5, 5]

    kept = need(model(layers="all", experts="all"), MIXED, machine(FIRST))
    assert kept is not None
    ((_, weights, _),) = kept.devices
    assert weights == 10 * GIB - 8 * 900 * MIB
    assert kept.weights == 10 * GIB


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("blk.0.ffn_up_exps.weight", True),
        ("blk.17.ffn_gate_up_exps.weight", True),
        ("blk.3.ffn_down_chexps.weight", True),
        ("blk.0.ffn_gate_inp.weight", False),  # the router
        ("blk.0.ffn_up_shexp.weight", False),  # the shared expert, which every token needs
        ("blk.0.ffn_up.weight", False),
    ],
)
def test_tensors_of_routed_experts(name: str, holds: bool) -> None:
    assert holds_experts(name) is holds


@pytest.mark.parametrize(
    ("facts", "count", "patterns"),
    [
        (MIXED, 0, ()),
        (MIXED, 2, (rf"blk\.2{EXPERTS}", rf"blk\.3{EXPERTS}")),  # the first two that have any
        (MIXED, -1, (EXPERTS,)),
        (None, 0, ()),
        (None, -1, (EXPERTS,)),
    ],
)
def test_the_patterns_of_experts_in_main_memory(
    facts: WeightFacts | None, count: int, patterns: tuple[str, ...]
) -> None:
    assert expert_patterns(facts, count) == patterns


def test_the_layers_with_experts() -> None:
    assert expert_layers(MIXED) == tuple(range(2, 10))
    assert expert_layers(DENSE) == ()


@pytest.mark.parametrize(
    ("gpu", "before", "after", "moves"),
    [
        ({}, ["a:1"], ["a:1", "b:1"], False),  # stays where it is
        ({}, ["a:1", "b:1"], ["a:1"], True),
        ({"devices": ["RPC0"]}, ["a:1", "b:1"], ["b:1", "a:1"], True),  # RPC0 is another host now
        ({"devices": ["a:1"]}, ["a:1"], ["b:1", "a:1"], True),
        ({"devices": ["CUDA0"]}, ["a:1"], [], False),
        ({"layers": 0}, ["a:1"], [], False),
    ],
)
def test_a_change_of_the_hosts_moves_the_models_on_them(
    gpu: dict[str, Any], before: list[str], after: list[str], moves: bool
) -> None:
    def manifest(hosts: list[str]) -> Manifest:
        tree = {"mullama": "v1", "hardware": {"rpc": hosts}, "models": {"a": {"from": "/m/a.gguf", "gpu": gpu}}}
        return parse_resolved(tree)

    old = manifest(before)
    applied = Applied(generation=1, revision=revision(old), manifest=old)

    steps = make_plan(manifest(after), Observed(applied=applied)).steps

    assert [step.subject for step in steps if step.action is Action.REPLACE] == (["a"] if moves else [])


PLACED = Placement(layers=7, devices=(FIRST,))


@pytest.mark.parametrize(
    ("old", "new", "devices", "kept"),
    [
        ({}, {}, (FIRST, SECOND), True),
        ({}, {}, (SECOND,), False),  # its device is gone
        ({}, {"layers": 3}, (FIRST,), False),
        ({"devices": ["CUDA0"]}, {"devices": ["CUDA0"]}, (FIRST,), True),
        ({"devices": ["CUDA0"]}, {"devices": ["CUDA0"]}, (SECOND,), False),
    ],
)
def test_a_placement_is_kept_by_a_change_that_does_not_concern_it(
    old: dict[str, Any], new: dict[str, Any], devices: tuple[Device, ...], kept: bool
) -> None:
    assert (kept_placement(model(**old), PLACED, model(**new), machine(*devices)) is PLACED) is kept


def test_models_that_cannot_be_placed_are_listed_with_their_field() -> None:
    tree = {
        "gone": {"from": "/m/a.gguf", "gpu": {"devices": ["CUDA7"]}},
        "right": {"from": "/m/a.gguf", "gpu": {"devices": ["CUDA0"]}},
        "many": {"from": "/m/b.gguf", "gpu": {"experts": 9}},
    }
    desired = parse_resolved({"mullama": "v1", "models": tree})
    files = {"/m/b.gguf": KnownFiles(source="/m/b.gguf", facts=MIXED)}

    found = list(placement_problems(desired, files, machine(FIRST)))

    assert [(path, message) for path, message, _ in found] == [
        ("models.gone.gpu.devices", "there is no device 'CUDA7'"),
        ("models.many.gpu.experts", "gpu.experts is 9, and the model has 8 layers with experts"),
    ]
    assert "there are CUDA0" in found[0][2]


def test_a_plan_names_the_devices_and_one_model_that_cannot_be_placed_spoils_no_plan() -> None:
    tree = {
        "gone": {"from": "/m/a.gguf", "gpu": {"devices": ["CUDA7"]}},
        "right": {"from": "/m/a.gguf", "gpu": {"devices": ["CUDA0"]}, "limits": {"parallel": 1}},
    }
    known = KnownFiles(source="/m/a.gguf", facts=DENSE, stored=True)
    observed = Observed(files={"/m/a.gguf": known}, machine=machine(FIRST))

    plan = make_plan(parse_resolved({"mullama": "v1", "models": tree}), observed)

    assert [step.detail for step in plan.steps] == ["load at start", "load at start on CUDA0 (10 GiB)"]
