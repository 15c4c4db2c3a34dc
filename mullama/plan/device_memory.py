"""The memory of each device before and after a plan, against the budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mullama.manifest.spec import Budget, Manifest, Model
from mullama.manifest.spec.readers import moves_of
from mullama.plan.devices import device_bound
from mullama.plan.fit import device_parts, main_memory_bound
from mullama.plan.observed import KnownFiles, Machine, Observed
from mullama.struct import Struct


class DeviceMemory(Struct, frozen=True, kw_only=True):
    """The bytes of the models that are in memory on one device, as estimated from their headers."""

    name: str
    """llama.cpp's name of the device; "" for main memory."""
    description: str
    before: int
    after: int
    budget: int
    """The bytes that all models may use there."""


def device_memory(desired: Manifest, observed: Observed) -> tuple[DeviceMemory, ...]:
    """Return main memory and then each device; empty for a machine of unknown memory.

    Before: the models that are loaded. After: those of them that stay declared, and those that load at start. Weights
    and contexts that models share count once. Models with an unknown header are left out.
    """
    machine = observed.machine
    if machine is None or machine.ram_total == 0:
        return ()
    loaded = {name for name, model in (observed.live or {}).items() if model.memory}
    applied = observed.applied.manifest.models if observed.applied else {}
    renamed = {to: name for name, to in moves_of(desired.moved, "model").items()}
    stay = [
        model
        for name, model in desired.models.items()
        if model.residency.load == "at_start" or name in loaded or renamed.get(name) in loaded
    ]
    before = _sums((model for name, model in applied.items() if name in loaded), observed.files, machine)
    after = _sums(stay, observed.files, machine)
    return tuple(
        DeviceMemory(name=name, description=text, before=before.get(name, 0), after=after.get(name, 0), budget=bound)
        for name, text, bound in budgets(machine, desired.hardware.budget)
    )


def budgets(machine: Machine, budget: Budget) -> Iterable[tuple[str, str, int]]:
    """Yield the name, the description and the budget in bytes of main memory, whose name is "", and of each device."""
    yield "", "", main_memory_bound(budget, machine)
    for number, device in enumerate(machine.gpus):
        yield device.name, device.description, device_bound(device, number, budget)


def _sums(models: Iterable[Model], files: Mapping[str, KnownFiles], machine: Machine) -> dict[str, int]:
    parts: dict[object, Mapping[str, int]] = {}
    for model in models:
        parts |= device_parts(model, files, machine)
    sums: dict[str, int] = {}
    for places in parts.values():
        for name, count in places.items():
            sums[name] = sums.get(name, 0) + count
    return sums
