"""The plan of a fleet: what each host answers becomes a placement, a manifest for each, and an order of changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mullama.errors import MullamaError, Refused, Unavailable
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import manifest_to_tree, parse_resolved, revision
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Observed
from mullama.plan.steps import to_tree
from mullama.targets.fleet.hosts import FleetHostPort, named
from mullama.targets.fleet.observe import gathered, observe_fleet, observe_host, require_near
from mullama.targets.fleet.plan import FleetPlan, draft_fleet, plan_fleet, tree_for
from mullama.targets.fleet.plan_views import fleet_lines, fleet_tree
from tests.manifest.builders import read
from tests.plan.builders import FACTS

GIB = 1 << 30
HEAD = """
fleet:
  hosts: {a: {url: "http://10.0.0.1"}, b: {url: "http://10.0.0.2"}, c: {url: "http://10.0.0.3"}}
"""
FILES = {
    f"/m/{name}.gguf": KnownFiles(
        source=f"/m/{name}.gguf", digest=f"sha256:{name * 64}", size=10**9, facts=FACTS, stored=True
    )
    for name in "12345"
}
"""Models of 0.76 GiB."""


STORED = {
    f"hf:org/{name}:Q8_0": KnownFiles(source=f"hf:org/{name}:Q8_0", size=10**6, facts=FACTS, stored=True)
    for name in "mn"
}


class PlannedHost:
    """A host that plans as a server does, without one."""

    def __init__(self, name: str, applied: Manifest | None = None, ram: float = 64, version: str = "0.2.0") -> None:
        self.name, self.version = name, version
        self.applied = applied or Manifest(mullama="v1")
        self.ram = int(ram * GIB)
        self.gone: MullamaError | None = None
        self.planned: list[Any] = []
        self.digests: dict[str, str] = {}

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        with named(self.name):
            if self.gone is not None:
                raise self.gone
        if path == "/api/v1/status":
            machine = {"ram_total": self.ram, "ram_available": self.ram, "gpus": [], "cores": 4}
            rows = [{"name": name, "digest": digest} for name, digest in self.digests.items()]
            return {"version": self.version, "machine": machine, "models": rows}
        return {"manifest": manifest_to_tree(self.applied), "revision": revision(self.applied)}

    def plan(self, manifest: Mapping[str, Any], targets: Sequence[str] = ()) -> Any:
        self.planned.append(manifest)
        live = {
            n: LiveModel(name=n, revision=revision(m), state="ready", memory=1, digest=self.digests.get(n, ""))
            for n, m in self.applied.models.items()
        }
        applied = Applied(generation=1, revision=revision(self.applied), manifest=self.applied)
        return to_tree(make_plan(parse_resolved(manifest), Observed(applied=applied, live=live, files=FILES | STORED)))


def ports(*hosts: PlannedHost) -> list[FleetHostPort]:
    return list(hosts)  # type: ignore[arg-type]


def planned(text: str, *hosts: PlannedHost) -> FleetPlan:
    manifest = read(HEAD + text).manifest
    draft = draft_fleet(manifest, observe_fleet(ports(*hosts), "0.2.0"), FILES)
    return plan_fleet(draft, ports(*hosts), "0.2.0")


def three(**options: Any) -> tuple[PlannedHost, PlannedHost, PlannedHost]:
    return PlannedHost("a", **options), PlannedHost("b", **options), PlannedHost("c", **options)


def lines(plan: FleetPlan) -> list[str]:
    return [line.text for line in fleet_lines(plan)]


def steps(plan: FleetPlan) -> list[str]:
    """Each step as `kind hosts`."""
    return [f"{step.kind} {''.join(step.manifests)}" for step in plan.draft.steps]


def carried_out(plan: FleetPlan, hosts: tuple[PlannedHost, ...]) -> None:
    """Apply all steps. At each of them, every gateway leads to hosts that have the model."""
    by_name = {host.name: host for host in hosts}
    for step in plan.draft.steps:
        for name, manifest in step.manifests.items():
            by_name[name].applied = parse_resolved(manifest_to_tree(manifest))
        if step.kind != "change":
            for host in hosts:
                for route in host.applied.routes.values():
                    for target in route.to if not isinstance(route, str) else ():
                        assert target.peer is None or target.model in by_name[target.peer].applied.models


MODELS = "models: {x: {from: /m/1.gguf, replicas: 2}, y: /m/2.gguf, z: /m/3.gguf}\n"


def test_an_empty_fleet_gets_its_models_and_then_nothing_changes() -> None:
    hosts = three()
    plan = planned(MODELS, *hosts)
    assert plan.complete
    assert plan.draft.placement.hosts == {"x": ("a", "b"), "y": ("c",), "z": ("a",)}
    assert lines(plan)[-2:] == ["step 1: models of a, b, c", "3 hosts of 3 to change"]
    carried_out(plan, hosts)
    again = planned(MODELS, *hosts)
    assert (again.empty, again.draft.steps) == (True, ())
    assert lines(again) == ["a: no changes", "b: no changes", "c: no changes", "no changes"]


PINS = {"hf:org/m:Q8_0": "1", "hf:org/n:Q8_0": "2"}


def pins(**digests: str) -> str:
    """Return the block `lock` with a pin of one digit for each source of `PINS`."""
    chosen = PINS | {f"hf:org/{name}:Q8_0": digit for name, digit in digests.items()}
    files = {source: f"files: [{{name: m.gguf, size: 1, digest: 'sha256:{d * 64}'}}]" for source, d in chosen.items()}
    return "lock: {sources: {" + ", ".join(f"'{s}': {{resolved: '{s}', {file}}}" for s, file in files.items()) + "}}\n"


PINNED = "models: {m: {from: 'hf:org/m:Q8_0', replicas: 2}, n: 'hf:org/n:Q8_0'}\n"


def test_each_host_gets_the_pins_of_its_models_and_another_pin_changes_them_in_turn() -> None:
    hosts = three()
    carried_out(planned(PINNED + pins(), *hosts), hosts)
    assert {host.name: [*host.applied.lock.sources] for host in hosts} == {
        "a": ["hf:org/m:Q8_0"], "b": ["hf:org/m:Q8_0"], "c": ["hf:org/n:Q8_0"],
    }  # fmt: skip
    assert planned(PINNED + pins(), *hosts).draft.steps == ()
    other = planned(PINNED + pins(m="3"), *hosts)
    assert steps(other) == ["change a", "change b"]
    assert any("lock.sources.hf:org/m:Q8_0 111111111111 -> 333333333333" in line for line in lines(other))
    assert [name for name, plan in other.plans.items() if not plan.empty] == ["a", "b"]


def test_a_first_pin_changes_no_model_that_has_its_files() -> None:
    hosts = three()
    carried_out(planned(PINNED, *hosts), hosts)
    for host in hosts:
        host.digests = {"m": f"sha256:{'1' * 64}", "n": f"sha256:{'9' * 64}"}
    plan = planned(PINNED + pins(), *hosts)
    assert {name: [(s.subject, s.cost.value) for s in own.steps] for name, own in plan.plans.items()} == {
        "a": [("lock", "none")], "b": [("lock", "none")], "c": [("n", "files"), ("lock", "none")],
    }  # fmt: skip
    assert steps(plan) == ["change abc"]


def test_one_more_model_moves_no_other_and_changes_in_place_touch_their_hosts_alone() -> None:
    hosts = three()
    carried_out(planned(MODELS, *hosts), hosts)
    more = planned(MODELS.replace("z:", "w: /m/4.gguf, z:"), *hosts)
    assert more.draft.placement.hosts == {"x": ("a", "b"), "y": ("c",), "z": ("a",), "w": ("b",)}
    assert steps(more) == ["change b", "route ac"]
    changed = planned(MODELS.replace("replicas: 2", "replicas: 2, system: Hi"), *hosts)
    assert steps(changed) == ["change a", "change b"]
    assert [name for name, plan in changed.plans.items() if not plan.empty] == ["a", "b"]


def test_a_model_that_may_not_stay_moves_without_a_gap() -> None:
    hosts = three()
    carried_out(planned(MODELS, *hosts), hosts)
    plan = planned(MODELS.replace("y: /m/2.gguf", "y: {from: /m/2.gguf, hosts: [b]}"), *hosts)
    assert steps(plan) == ["change b", "route ab", "remove c"]
    carried_out(plan, hosts)
    assert [[*host.applied.models] for host in hosts] == [["x", "z"], ["x", "y"], []]
    assert planned(MODELS.replace("y: /m/2.gguf", "y: {from: /m/2.gguf, hosts: [b]}"), *hosts).empty


def test_full_hosts_change_in_rounds() -> None:
    """Each host has room for one model: y leaves b before x can come."""
    hosts = three(ram=1)
    carried_out(planned("models: {x: {from: /m/1.gguf, hosts: [a]}, y: {from: /m/2.gguf, hosts: [b]}}", *hosts), hosts)
    text = "models: {x: {from: /m/1.gguf, hosts: [b]}, y: {from: /m/2.gguf, hosts: [c]}}"
    plan = planned(text, *hosts)
    assert steps(plan) == ["change c", "route abc", "remove b", "change b", "route abc", "remove a"]
    carried_out(plan, hosts)
    assert planned(text, *hosts).empty


def test_the_settings_of_all_hosts_change_with_the_canary_first() -> None:
    hosts = three()
    carried_out(planned(MODELS, *hosts), hosts)
    text = MODELS + "server: {limits: {queue: 9}}\n"
    head = "  rollout: {canary: 1, pause: 30s}\n"
    plan = planned(head + text, *hosts)
    assert [(step.kind, [*step.manifests], step.canary, step.pause) for step in plan.draft.steps] == [
        ("change", ["a"], True, 30.0),
        ("change", ["b", "c"], False, 0.0),
    ]
    assert "step 1: models of a (canary), then wait for 30s" in lines(plan)


def test_a_surge_keeps_a_model_that_would_pause_in_reach() -> None:
    """Each host has room for one model, and x loads its weights again."""
    head = "  rollout: {max_unavailable: 0, max_surge: 1}\n"
    text = "models: {x: {from: /m/1.gguf, hosts: [a, b]}, y: {from: /m/2.gguf, hosts: [c]}}"
    hosts = three(ram=1)
    carried_out(planned(head + text, *hosts), hosts)
    longer = text.replace("hosts: [a, b]", "hosts: [a, b], memory: {mmap: false}")
    plan = planned(head + longer, *hosts)
    assert steps(plan) == ["change b", "route ac", "remove a", "change a", "route ac", "remove b"]
    assert lines(plan)[-7:-3] == [
        "step 1: models of b (surge)", "step 2: routes of a, c (surge)", "step 3: removals of a (surge)",
        "step 4: models of a",
    ]  # fmt: skip
    carried_out(plan, hosts)
    assert [[*host.applied.models] for host in hosts] == [["x"], [], ["y"]]
    assert planned(head + longer, *hosts).empty
    roomy = three(ram=64)
    carried_out(planned(head + text, *roomy), roomy)
    assert steps(planned(head + longer, *roomy)) == ["change a"]


def test_a_new_context_over_the_same_weights_needs_no_further_replica() -> None:
    head = "  rollout: {max_unavailable: 0, max_surge: 1}\n"
    text = "models: {x: {from: /m/1.gguf, hosts: [a, b]}, y: {from: /m/2.gguf, hosts: [c]}}"
    hosts = three(ram=1)
    carried_out(planned(head + text, *hosts), hosts)
    assert steps(planned(head + text.replace("[a, b]", "[a, b], context: {size: 256}"), *hosts)) == ["change a"]
    drafts = planned(head + text.replace("[a, b]", "[a, b], draft: ngram"), *hosts)
    assert len(steps(drafts)) > 1


def test_a_model_that_would_pause_without_room_elsewhere_is_named() -> None:
    head = "  rollout: {max_unavailable: 0, max_surge: 1}\n"
    text = "models: {x: {from: /m/1.gguf, hosts: [a]}}"
    hosts = three(ram=1)
    carried_out(planned(head + text, *hosts), hosts)
    longer = text.replace("hosts: [a]", "hosts: [a], memory: {mmap: false}")
    plan = planned(head + longer, *hosts)
    assert not plan.complete
    assert lines(plan)[-2].startswith("x would pause: no host has room for a further replica")
    assert lines(plan)[-1] == "1 model cannot change: apply would change nothing"
    assert fleet_tree(plan)["blocked"] == ["x"]
    assert steps(planned(longer, *hosts)) == ["change a"]


def test_a_changed_route_reaches_the_hosts_without_their_models() -> None:
    hosts = three()
    carried_out(planned(MODELS, *hosts), hosts)
    plan = planned(MODELS + "routes: {default: y}", *hosts)
    assert steps(plan) == ["route abc"]


def test_a_host_that_does_not_answer_is_named_and_nothing_is_placed() -> None:
    hosts = three()
    hosts[1].gone = Unavailable("no server answers at http://10.0.0.2: timed out")
    plan = planned(MODELS, *hosts)
    assert not plan.complete
    assert lines(plan) == [
        "a: answers, and is not planned",
        "b: no server answers at http://10.0.0.2: timed out",
        "c: answers, and is not planned",
        "1 host cannot be planned: apply would change nothing; --skip b plans without it",
    ]
    tree = fleet_tree(plan)
    assert tree["complete"] is False
    assert (tree["hosts"]["b"]["error"]["kind"], tree["hosts"]["a"]["plan"]) == ("unavailable", None)


def test_a_model_that_fits_nowhere_is_named_with_the_numbers() -> None:
    plan = planned(MODELS, *three(ram=1))
    assert not plan.complete
    assert any(text.startswith("z needs ") and "left" in text for text in lines(plan))
    assert lines(plan)[-1] == "1 model cannot be placed: apply would change nothing"


def test_models_of_unknown_size_are_placed_by_the_size_of_their_files() -> None:
    text = "models: {x: /m/8.gguf, y: /m/9.gguf}"
    files = {"/m/8.gguf": KnownFiles(source="/m/8.gguf", size=70 * GIB)}
    seen = observe_fleet(ports(*three()), "0.2.0")
    draft = draft_fleet(read(HEAD + text).manifest, seen, files)
    assert [each.model for each in draft.placement.unplaced] == ["x"]


@pytest.mark.parametrize("theirs", ["0.1.9", "0.2.7", "0.3.0"])
def test_one_minor_version_apart_works(theirs: str) -> None:
    require_near("a", theirs, "0.2.0")


@pytest.mark.parametrize("theirs", ["0.4.0", "1.2.0", "0.0.9", "", "next"])
def test_more_than_one_minor_version_apart_is_refused(theirs: str) -> None:
    with pytest.raises(Refused, match=f"a: runs mullama {theirs or 'of an unknown version'}, and this is 0.2.0"):
        require_near("a", theirs, "0.2.0")


def test_a_host_of_another_version_gets_no_fields_that_it_may_not_know() -> None:
    manifest = read("models: {x: builtin:tiny}").manifest
    assert tree_for(manifest, "0.2.0", "0.2.0") == manifest_to_tree(manifest)
    assert tree_for(manifest, "0.1.0", "0.2.0") == {"mullama": "v1", "models": {"x": {"from": "builtin:tiny"}}}
    host = PlannedHost("a", version="0.3.1")
    assert observe_host(ports(host)[0], "0.2.0").version == "0.3.1"


def test_the_order_of_answers_does_not_matter() -> None:
    seen = observe_fleet(ports(*three()), "0.2.0")
    turned = gathered(dict(reversed(seen.hosts.items())))
    manifest = read(HEAD + MODELS).manifest
    assert draft_fleet(manifest, seen, FILES).placement == draft_fleet(manifest, turned, FILES).placement
