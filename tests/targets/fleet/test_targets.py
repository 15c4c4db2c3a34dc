"""A change of some models of a fleet: the others stay as each host has them."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import NotFound
from mullama.targets.fleet.observe import observe_fleet
from mullama.targets.fleet.plan import FleetPlan, draft_fleet, plan_fleet
from mullama.targets.fleet.stages import stages_of
from tests.manifest.builders import read
from tests.targets.fleet.test_plan import FILES, HEAD, MODELS, PlannedHost, carried_out, planned, ports, steps
from tests.targets.fleet.test_plan import three as three_hosts

Hosts = tuple[PlannedHost, ...]


def part(text: str, hosts: Hosts, *targets: str) -> FleetPlan:
    draft = draft_fleet(read(HEAD + text).manifest, observe_fleet(ports(*hosts), "0.2.0"), FILES, targets)
    return plan_fleet(draft, ports(*hosts), "0.2.0")


def served(text: str, **options: Any) -> Hosts:
    hosts = three_hosts(**options)
    carried_out(planned(text, *hosts), hosts)
    return hosts


CHANGED = (
    "models: {x: {from: /m/1.gguf, replicas: 2, system: Hi}, y: {from: /m/2.gguf, system: Hi}, z: /m/3.gguf,"
    " w: /m/4.gguf}\nroutes: {default: w}\nserver: {limits: {queue: 9}}\n"
)


def test_only_the_target_changes() -> None:
    hosts = served(MODELS)  # x on a and b, y on c, z on a
    plan = part(CHANGED, hosts, "y")
    assert plan.complete
    assert plan.draft.targets == ("y",)
    assert steps(plan) == ["change c"]
    assert [name for name, own in plan.plans.items() if not own.empty] == ["c"]
    carried_out(plan, hosts)
    assert part(CHANGED, hosts, "y").empty
    assert hosts[2].applied.models["y"].system == "Hi"
    assert hosts[0].applied.models["x"].system is None
    assert "w" not in hosts[0].applied.routes


def test_a_route_brings_the_model_that_it_leads_to() -> None:
    hosts = served(MODELS)
    plan = part(CHANGED, hosts, "default")
    assert plan.draft.targets == ("default", "w")
    carried_out(plan, hosts)
    [place] = [host.name for host in hosts if "w" in host.applied.models]
    for host in hosts:
        assert "default" in host.applied.routes
        assert "w" in (host.applied.models if host.name == place else host.applied.routes)
        assert host.applied.server.limits.queue != 9
    assert part(CHANGED, hosts, "default", "w").empty
    assert not planned(CHANGED, *hosts).empty


def test_a_target_that_left_the_manifest_is_removed() -> None:
    hosts = served(MODELS)
    without = "models: {x: {from: /m/1.gguf, replicas: 2}, y: {from: /m/2.gguf, system: Hi}}"
    plan = part(without, hosts, "z")
    carried_out(plan, hosts)
    assert not any("z" in host.applied.models or "z" in host.applied.routes for host in hosts)
    assert hosts[2].applied.models["y"].system is None


def test_other_models_keep_their_room() -> None:
    hosts = served("models: {x: /m/1.gguf, y: /m/2.gguf, z: /m/3.gguf}", ram=1)  # each host is full
    plan = part("models: {w: /m/4.gguf}", hosts, "w")
    assert [each.model for each in plan.draft.placement.unplaced] == ["w"]
    alone = planned("models: {w: /m/4.gguf}", *hosts)
    assert alone.complete


def test_a_renamed_model_takes_its_former_place() -> None:
    hosts = served(MODELS)
    renamed = MODELS.replace("y: /m/2.gguf", "q: /m/2.gguf") + "moved: [{from: y, to: q}]\n"
    plan = part(renamed, hosts, "q")
    carried_out(plan, hosts)
    assert ([*hosts[2].applied.models], "y" in hosts[0].applied.routes) == (["q"], False)


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(NotFound, match="there is no model or route 'v' to target"):
        part(MODELS, three_hosts(), "v")


def test_each_host_gets_the_targets_that_it_has() -> None:
    hosts = served(MODELS)
    [stage] = stages_of(part(CHANGED, hosts, "y"), fleet="f", fence=1, by="ann", version="0.2.0", offline=True)
    assert [(name, step.targets, step.offline) for name, step in stage.steps.items()] == [("c", ("y",), True)]
