"""The memory of each device before and after a plan."""

from __future__ import annotations

from typing import Any

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.device_memory import DeviceMemory, device_memory
from mullama.plan.fit import need
from mullama.plan.observed import Applied, Device, KnownFiles, LiveModel, Machine, Observed
from mullama.weights.facts import LayerFacts, WeightFacts

GIB = 1024**3
FACTS = WeightFacts(
    architecture="llama", parameter_count=10**9, size_bytes=10 * GIB, layers=10, embedding_length=1024, heads=(8,),
    kv_heads=(2,), train_context=32768, vocabulary=1000, per_layer=(LayerFacts(weights=GIB, key=256, value=256),) * 10,
)  # fmt: skip
DEVICE = Device(name="CUDA0", description="card", total=80 * GIB, free=79 * GIB)
CPU, GPU = (Machine(ram_total=64 * GIB, ram_available=60 * GIB, gpus=gpus, cores=4) for gpus in ((), (DEVICE,)))
ON_DEMAND = {"residency": {"load": "on_demand"}}


def manifest(models: dict[str, dict[str, Any]], **blocks: Any) -> Manifest:
    models = {name: {"from": "/m/a.gguf", **fields} for name, fields in models.items()}
    return parse_resolved({"mullama": "v1", "models": models, **blocks})


def found(before: Manifest, after: Manifest, *loaded: str, machine: Machine = CPU) -> tuple[DeviceMemory, ...]:
    live = {
        name: LiveModel(name=name, revision="r", state="ready", digest="d", memory=1 if name in loaded else 0)
        for name in before.models
    }
    files = {"/m/a.gguf": KnownFiles(source="/m/a.gguf", digest="d", facts=FACTS)}
    applied = Applied(generation=1, revision="r", manifest=before)
    return device_memory(after, Observed(applied=applied, live=live, files=files, machine=machine))


def total(desired: Manifest, name: str = "a", machine: Machine = CPU) -> int:
    wanted = need(desired.models[name], FACTS, machine)
    assert wanted is not None
    return wanted.total


def test_a_model_that_loads_at_start_is_added_and_one_on_demand_is_not() -> None:
    one, two = manifest({"a": {}}), manifest({"a": {}, "b": {"context": {"size": 512}}, "c": ON_DEMAND})
    (memory,) = found(one, two, "a")
    weights = 10 * GIB
    assert memory.before == total(one)
    assert memory.after == total(one) + total(two, "b") - weights  # the weights are shared
    assert memory.budget == 64 * GIB


def test_a_loaded_model_on_demand_stays_and_a_removed_one_goes() -> None:
    one = manifest({"a": ON_DEMAND})
    (kept,) = found(one, one, "a")
    (gone,) = found(one, manifest({}), "a")
    (idle,) = found(one, one)
    assert kept.before == kept.after == total(one)
    assert (gone.before, gone.after) == (total(one), 0)
    assert (idle.before, idle.after) == (0, 0)


def test_a_renamed_model_stays_in_memory() -> None:
    renamed = manifest({"b": ON_DEMAND}, moved=[{"from": "a", "to": "b"}])
    (memory,) = found(manifest({"a": ON_DEMAND}), renamed, "a")
    assert memory.before == memory.after > 0


def test_each_device_has_its_part_and_its_budget() -> None:
    one = manifest({"a": {"gpu": {"layers": "all"}}}, hardware={"budget": {"ram": "8GiB", "gpu": {"0": "50%"}}})
    ram, card = found(one, one, "a", machine=GPU)
    assert ram.after + card.after == total(one, machine=GPU)
    assert card.after > 9 * GIB > ram.after
    assert (ram.budget, card.budget) == (8 * GIB, 40 * GIB)
    assert (ram.name, card.name, card.description) == ("", "CUDA0", "card")


def test_nothing_is_claimed_of_a_machine_that_is_not_known() -> None:
    one = manifest({"a": {}})
    assert found(one, one, "a", machine=Machine()) == ()
