"""Models over the devices of several hosts: where they are, what they take there, and the manifests of both."""

from __future__ import annotations

from mullama.errors import ManifestError
from mullama.manifest.checks.fleet import lenders_of, matching_hosts
from mullama.manifest.spec import Manifest
from mullama.plan.observed import KnownFiles
from mullama.targets.fleet.observe import observe_fleet
from mullama.targets.fleet.plan import FleetPlan, draft_fleet, plan_fleet
from tests.manifest.builders import read
from tests.plan.builders import FACTS
from tests.targets.fleet.test_plan import GIB, PlannedHost, carried_out, lines, ports, steps

HEAD = """
fleet:
  hosts:
    a: {url: "http://10.0.0.1"}
    b: {url: "http://10.0.0.2", rpc: "10.0.0.2:50052"}
    c: {url: "http://10.0.0.3", rpc: "10.0.0.3:50052"}
"""
FILES = {
    name: KnownFiles(source=name, digest=f"sha256:{digit * 64}", size=10**9, facts=FACTS, stored=True)
    for name, digit in (("/m/1.gguf", "1"), ("/m/2.gguf", "2"))
}
"""Models of 0.76 GiB."""
BIG = "big: {from: /m/1.gguf, gpu: {devices: [b, c], layers: {'0': 2, '1': 1}}}"


def planned(models: str, *hosts: PlannedHost) -> FleetPlan:
    draft = draft_fleet(manifest(models), observe_fleet(ports(*hosts), "0.2.0"), FILES)
    return plan_fleet(draft, ports(*hosts), "0.2.0")


def manifest(models: str) -> Manifest:
    return read(f"{HEAD}models: {{{models}}}\n").manifest


def three(ram: float = 64) -> tuple[PlannedHost, PlannedHost, PlannedHost]:
    return PlannedHost("a", ram=ram), PlannedHost("b", ram=ram), PlannedHost("c", ram=ram)


def problems(text: str) -> list[str]:
    try:
        read(text)
    except ManifestError as error:
        return [problem.message for problem in error.problems]
    return []


def test_a_host_that_lends_devices_does_not_serve_the_model() -> None:
    found = manifest(f"{BIG}, small: /m/2.gguf")
    big, small = found.models["big"], found.models["small"]
    assert (lenders_of(big, found.fleet), matching_hosts(big, found.fleet)) == (("b", "c"), ("a",))
    assert (lenders_of(small, found.fleet), matching_hosts(small, found.fleet)) == ((), ("a", "b", "c"))
    assert problems(HEAD + "models: {m: {from: /m/1.gguf, gpu: {devices: [a]}}}") == ["a lends no devices"]
    alone = "models: {m: {from: /m/1.gguf, hosts: [b], gpu: {devices: [b]}}}"
    assert problems(HEAD + alone) == ["no host is left to serve it beside b, which lend devices"]
    assert problems(HEAD.replace("10.0.0.3:50052", "10.0.0.2:50052")) == ["is the address of b as well"]


def test_the_host_that_serves_it_gets_the_addresses_and_other_models_stay_off_them() -> None:
    hosts = three()
    plan = planned(f"{BIG}, small: {{from: /m/2.gguf, hosts: [a]}}", *hosts)
    assert plan.draft.placement.hosts == {"big": ("a",), "small": ("a",)}
    assert set(plan.draft.lent["big"]) == {"b", "c"}
    assert plan.draft.lent["big"]["b"] > plan.draft.lent["big"]["c"] > 0
    assert any(line.startswith("big uses devices of b (") for line in lines(plan))
    made = plan.draft.manifests["a"]
    assert made.hardware.rpc == ("10.0.0.2:50052", "10.0.0.3:50052")
    assert made.models["big"].gpu.devices == ("10.0.0.2:50052", "10.0.0.3:50052")
    assert made.models["small"].gpu.layers == 0
    carried_out(plan, hosts)
    assert steps(planned(f"{BIG}, small: {{from: /m/2.gguf, hosts: [a]}}", *hosts)) == []
    carried_out(planned("small: {from: /m/2.gguf, hosts: [a]}", *hosts), hosts)
    assert hosts[0].applied.hardware.rpc == ()
    assert hosts[0].applied.models["small"].gpu.layers == "auto"


def test_what_a_host_lends_is_missing_for_its_own_models() -> None:
    one = "small: {from: /m/2.gguf, hosts: [b]}"
    assert planned(one, *three(ram=0.8)).complete
    assert planned(BIG, *three(ram=0.8)).complete
    both = planned(f"{BIG}, {one}", *three(ram=0.8))
    assert [each.model for each in both.draft.placement.unplaced] == ["small"]


def test_models_that_need_more_of_a_host_than_it_has_are_named() -> None:
    all_there = "gpu: {devices: [b], layers: all}"
    two = f"one: {{from: /m/1.gguf, {all_there}}}, two: {{from: /m/2.gguf, {all_there}}}"
    assert planned(two, *three()).complete
    short = planned(two, *three(ram=1))
    assert [each.model for each in short.draft.placement.unplaced] == ["one", "two"]
    assert "of the devices of b, which lends" in short.draft.placement.unplaced[0].reason
    assert GIB > short.draft.lent["one"]["b"] > 0
