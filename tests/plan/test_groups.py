"""Groups that allow more models than memory holds."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.manifest.tree import parse_resolved
from mullama.plan.groups import too_narrow
from mullama.plan.observed import KnownFiles, Machine
from tests.plan.test_fit import CPU, FACTS, GPU


@pytest.mark.parametrize(
    ("most", "machine", "narrow"), [(1, CPU, False), (2, CPU, True), (2, GPU, False), (2, None, False), (3, CPU, True)]
)
def test_a_group_that_allows_more_than_memory_holds_is_named(most: int, machine: Machine | None, narrow: bool) -> None:
    on_demand: dict[str, Any] = {"residency": {"load": "on_demand"}}
    models = {name: {"from": f"/m/{name}.gguf", **on_demand} for name in "ab"}
    groups = {"g": {"models": ["a", "b"], "max": most}}
    desired = parse_resolved({"mullama": "v1", "models": models, "groups": groups})
    files = {model.from_: KnownFiles(source=model.from_, facts=FACTS) for model in desired.models.values()}

    found = too_narrow(desired, files, machine)

    assert bool(found) == narrow
    assert all(f"the group g allows {most} loaded models" in text and "groups.g.max" in text for text in found)
