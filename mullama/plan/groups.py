"""Groups whose models do not fit into memory in the number that the group allows."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.manifest.spec import Manifest
from mullama.plan.fit import drafter_facts, known_need, memory_bound, projector_memory
from mullama.plan.observed import KnownFiles, Machine
from mullama.units import size


def too_narrow(desired: Manifest, files: Mapping[str, KnownFiles], machine: Machine | None) -> tuple[str, ...]:
    """Return a remark for each group whose largest models, as many as it allows, exceed the memory of this machine.

    Models of unknown size are left out. The sum is over all devices and counts what models share twice.
    """
    bound = memory_bound(desired.hardware.budget, machine)
    if bound is None:
        return ()
    found = []
    for name, group in desired.groups.items():
        needs: list[tuple[int, str]] = []
        for member in group.models:
            model = desired.models[member]
            known = files.get(model.from_)
            beside = projector_memory(model, files)
            small = drafter_facts(model, files)
            need = known_need(model, known.facts, machine, small, projector=beside) if known else None
            if need is not None:
                needs.append((need.total, member))
        largest = sorted(needs, reverse=True)[: group.max]
        total = sum(count for count, _ in largest)
        if len(largest) > 1 and total > bound:
            names = ", ".join(member for _, member in largest)
            found.append(
                f"the group {name} allows {group.max} loaded models, but {names} need {size(total, digits=2)} and may"
                f" use {size(bound, digits=2)}: memory loads fewer of them; lower groups.{name}.max"
            )
    return tuple(found)
