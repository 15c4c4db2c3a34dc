"""The applications of a cluster and the steps to those of a manifest, as values. Ray is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from mullama.errors import Conflict, EngineFailed, Invalid, MullamaError, Refused, TimedOut, Unavailable
from mullama.export.ray_serve import BUILDERS, gateway_name
from mullama.targets.ray.affinity import ranked
from mullama.targets.ray.apply import RayTarget, status_tree
from mullama.targets.ray.cluster import (
    Cluster,
    document,
    failures,
    history_after,
    last_line,
    owner,
    plan_ray,
    read_cluster,
    same,
    snapshot,
)

STACK = "demo"
GATE = gateway_name(STACK)
OTHER = {"name": "other", "import_path": "shop:app", "route_prefix": "/shop", "args": {"stack": STACK}}


def app(name: str, system: str = "", **more: Any) -> dict[str, Any]:
    inner = {"manifest": {"models": {name: {"task": "chat", "system": system}}}, "lock": {}}
    return {
        "name": f"m-{name}", "import_path": f"{BUILDERS}:model", "route_prefix": None,
        "args": {"stack": STACK, "model": name}, "deployments": [{"name": "model", "user_config": inner}], **more,
    }  # fmt: skip


def gateway(*names: str, generation: int = 1, history: tuple[Any, ...] = ()) -> dict[str, Any]:
    config = {
        "generation": generation, "manifest": {"mullama": "v1"}, "history": list(history),
        "applications": {name: f"m-{name}" for name in names},
    }  # fmt: skip
    return {
        "name": GATE, "import_path": f"{BUILDERS}:gateway", "route_prefix": "/",
        "args": {"stack": STACK, "version": "1"},
        "deployments": [{"name": "gateway", "user_config": config}],
    }  # fmt: skip


def named(*entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def left_over(name: str, kind: str = "probe") -> dict[str, Any]:
    """An application that an apply declared, and did not remove because it was killed."""
    return {"name": name, "import_path": f"{BUILDERS}:{kind}", "route_prefix": None, "args": {"stack": STACK}}


def details(*entries: dict[str, Any], imperative: tuple[str, ...] = (), **states: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        entry["name"]: {
            "status": states.get(entry["name"].replace("-", "_"), "RUNNING"), "message": "",
            "route_prefix": entry["route_prefix"], "deployed_app_config": entry, "deployments": {},
        }
        for entry in entries
    }  # fmt: skip
    found |= {name: {"status": "RUNNING", "message": "", "deployed_app_config": None} for name in imperative}
    return {
        "applications": found,
        "controller_info": {"node_id": "x"},
        "proxy_location": "EveryNode",
        "http_options": {"port": 8000},
    }


def test_an_application_belongs_to_the_stack_that_its_builder_names() -> None:
    assert owner(app("a")) == STACK
    assert owner(gateway()) == STACK
    assert owner(OTHER) is None, "the arguments of others may have any names"
    cluster = read_cluster(details(app("a"), OTHER, imperative=("script",)))
    assert list(cluster.mine(STACK)) == ["m-a"]
    assert list(cluster.others(STACK)) == ["other"]
    assert list(cluster.mine("elsewhere")) == []
    assert cluster.imperative == {"script"}


@pytest.mark.parametrize(
    ("present", "desired", "added", "changed", "removed", "gate"),
    [
        ([], [app("a"), gateway("a")], ["m-a"], [], [], "add"),
        ([app("a"), gateway("a")], [app("a"), gateway("a", generation=2)], [], [], [], "keep"),
        ([app("a"), gateway("a")], [app("b"), gateway("b")], ["m-b"], [], ["m-a"], "change"),
        ([app("a"), gateway("a")], [app("a", "x"), gateway("a")], [], ["m-a"], [], "keep"),
        ([app("a"), gateway("a")], [], [], [], ["m-a"], "remove"),
        ([app("a"), app("b"), gateway("a")], [app("a"), gateway("a")], [], [], ["m-b"], "keep"),
    ],
)
def test_the_steps_load_beside_then_switch_then_remove(
    present: list[Any], desired: list[Any], added: list[str], changed: list[str], removed: list[str], gate: str
) -> None:
    cluster = read_cluster(details(*present, OTHER))
    plan = plan_ray(cluster, named(*desired), STACK)
    assert (list(plan.added), list(plan.changed), list(plan.removed), plan.gateway) == (added, changed, removed, gate)
    old, new = named(*present), named(*desired)
    models = (old.keys() | new.keys()) - {GATE}
    assert plan.together.keys() - {GATE} == models, "the old and the new applications are declared together"
    assert plan.together.get(GATE) == old.get(GATE)
    assert plan.routed.get(GATE) == new.get(GATE)
    assert plan.routed.keys() - {GATE} == models
    assert plan.final == new
    for entries in (plan.before, plan.together, plan.routed, plan.final):
        assert document(cluster, STACK, entries, {})["applications"][0] == OTHER, "others are repeated as they are"
    assert plan.empty == (not (added or changed or removed) and gate == "keep")


@pytest.mark.parametrize(
    ("others", "imperative", "error"),
    [
        ([{**app("a"), "args": {"stack": "theirs"}}], (), Conflict),
        ([], ("m-a",), Conflict),
        ([{**OTHER, "route_prefix": "/"}], (), Conflict),
        ([{**OTHER, "runtime_env": {"env_vars": {"K": "<redacted>"}}}], (), Refused),
        ([{**OTHER, "deployments": [{"ray_actor_options": {"runtime_env": {"pip": ["<redacted>"]}}}]}], (), Refused),
    ],
)
def test_what_is_not_ours_is_refused(others: list[Any], imperative: tuple[str, ...], error: type[MullamaError]) -> None:
    cluster = read_cluster(details(*others, imperative=imperative))
    with pytest.raises(error):
        plan_ray(cluster, named(app("a"), gateway("a")), STACK)


def test_text_of_others_that_looks_hidden_is_no_reason_to_refuse() -> None:
    other = {**OTHER, "args": {"note": "<redacted>"}, "runtime_env": {}}
    assert plan_ray(read_cluster(details(other)), named(app("a"), gateway("a")), STACK).added == ("m-a",)


def test_what_a_killed_apply_declared_is_loaded_and_probed_like_a_new_one() -> None:
    present = details(app("a"), app("b"), left_over("probe-demo-2-b"), gateway("a"), m_b="DEPLOY_FAILED")
    plan = plan_ray(read_cluster(present), named(app("b"), gateway("b", generation=2)), STACK)
    assert (plan.added, plan.failed, plan.changed) == (("m-b",), ("m-b",), ())
    assert plan.removed == ("m-a", "probe-demo-2-b")
    assert all("probe-demo-2-b" not in entries for entries in (plan.before, plan.together, plan.routed, plan.final))


def test_a_gateway_that_failed_gets_its_snapshot_again() -> None:
    present = [app("a"), gateway("a")]
    for state, step in (("RUNNING", "keep"), ("DEPLOYING", "keep"), ("DEPLOY_FAILED", "change")):
        cluster = read_cluster(details(*present, **{GATE.replace("-", "_"): state}))
        assert plan_ray(cluster, named(*present), STACK).gateway == step


def test_the_options_of_a_serve_that_runs_are_repeated() -> None:
    running = read_cluster({**details(), "target_capacity": 50.0})
    assert document(running, STACK, {}, {"http_options": {"port": 1}}) == {
        "proxy_location": "EveryNode", "http_options": {"port": 8000}, "target_capacity": 50.0, "applications": [],
    }  # fmt: skip
    fresh = read_cluster({"applications": {}})
    assert document(fresh, STACK, {}, {"http_options": {"port": 1}})["http_options"] == {"port": 1}
    with pytest.raises(Invalid, match="is it a dashboard of Ray"):
        read_cluster({"detail": "Not Found"})


def test_the_state_of_a_stack_is_the_snapshot_of_its_gateway() -> None:
    assert snapshot(Cluster(), STACK) is None
    found = snapshot(read_cluster(details(gateway("a", generation=4, history=({"generation": 3},)))), STACK)
    assert found is not None
    assert history_after({**found, "lock": {"x": 1}, "keys": []})[0].keys() == {"generation", "manifest", "lock"}
    assert found["generation"] == 4
    assert [entry["generation"] for entry in history_after(found)] == [4, 3]
    assert history_after(None) == []


def test_numbers_of_revisions_and_defaults_are_no_difference() -> None:
    assert same(gateway("a", generation=1), gateway("a", generation=2, history=({"generation": 1},)))
    assert same({"x": 1, "y": None}, {"x": 1.0})
    assert not same({"x": True}, {"x": 2})


def test_the_reason_of_a_failure_is_the_error_of_the_replica() -> None:
    message = "Traceback\n  File x\nmullama.errors.EngineFailed: a: the probe failed\n\nRetrying"
    cluster = Cluster(states={"m-a": "DEPLOY_FAILED", "m-b": "RUNNING"}, messages={"m-a": message})
    assert list(failures(cluster, ("m-a", "m-b"))) == ["m-a: EngineFailed: a: the probe failed"]
    assert last_line("") == "no reason is given"


def test_conversations_stay_with_a_replica_and_few_move() -> None:
    replicas = [f"r{number}" for number in range(8)]
    keys = [bytes([number, 1]) for number in range(200)]
    first = {key: ranked(replicas, key)[0] for key in keys}
    assert first == {key: ranked(reversed(replicas), key)[0] for key in keys}
    assert set(first.values()) == set(replicas), "all replicas get some"
    fewer = {key: ranked(replicas[1:], key)[0] for key in keys}
    assert all(fewer[key] == first[key] for key in keys if first[key] != "r0")
    assert ranked(replicas, keys[0])[1] == ranked([r for r in replicas if r != first[keys[0]]], keys[0])[0]


class FakeDashboard:
    """Serve without replicas: what is declared runs at the second look, or fails."""

    address = "http://dash"

    def __init__(
        self,
        *entries: dict[str, Any],
        broken: tuple[str, ...] = (),
        stuck: tuple[str, ...] = (),
        unhealthy: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """unhealthy: looks until an application recovers."""
        self.entries, self.broken, self.stuck, self.unhealthy = named(*entries), broken, stuck, unhealthy
        self.seen: dict[str, int] = dict.fromkeys(self.entries, 9)
        self.puts: list[list[str]] = []
        self.absent: list[MullamaError] = []
        """Raised by the next calls, one each."""

    def put(self, config: dict[str, Any]) -> None:
        if self.absent:
            raise self.absent.pop()
        self.entries = named(*config["applications"])
        self.puts.append(sorted(self.entries))
        self.seen = {name: self.seen.get(name, 0) for name in self.entries}

    def details(self) -> dict[str, Any]:
        if self.absent:
            raise self.absent.pop()
        states = {}
        for name in self.entries:
            self.seen[name] = self.seen.get(name, 0) + 1
            state = "RUNNING" if self.seen[name] > 2 and not name.startswith(self.stuck or ("-",)) else "DEPLOYING"
            state = "UNHEALTHY" if self.seen[name] < self.unhealthy.get(name, 0) else state
            states[name.replace("-", "_")] = "DEPLOY_FAILED" if name.startswith(self.broken or ("-",)) else state
        return details(*self.entries.values(), **states)


def target(dashboard: FakeDashboard, **more: Any) -> RayTarget:
    passed = iter(range(10_000))
    return RayTarget(
        dashboard=dashboard, stack=STACK, settings={}, report=lambda text: None,  # type: ignore[arg-type]
        pause=lambda seconds: None, clock=lambda: float(next(passed)), **more,
    )  # fmt: skip


def applied(dashboard: FakeDashboard, *desired: dict[str, Any], **more: Any) -> None:
    one = target(dashboard, **more)
    one.apply(plan_ray(one.look(), named(*desired), STACK))


def test_an_apply_declares_the_union_the_probe_the_switch_and_the_rest() -> None:
    dashboard = FakeDashboard(OTHER, app("a"), gateway("a"))
    applied(dashboard, app("b"), gateway("b", generation=2))
    assert dashboard.puts == [
        [GATE, "m-a", "m-b", "other"],
        [GATE, "m-a", "m-b", "other", "probe-demo-2-b"],
        [GATE, "m-a", "m-b", "other"],
        [GATE, "m-b", "other"],
    ]
    assert dashboard.entries["other"] == OTHER
    assert status_tree(target(dashboard))["generation"] == 2


def test_a_live_change_is_probed_and_its_refusal_restores_the_settings() -> None:
    before = [app("a"), gateway("a")]
    dashboard = FakeDashboard(*before)
    applied(dashboard, app("a", "live"), gateway("a", generation=2))
    assert dashboard.puts == [[GATE, "m-a"], [GATE, "m-a", "probe-demo-2-a"], [GATE, "m-a"]]
    refusing = FakeDashboard(*before, broken=("probe",))
    with pytest.raises(EngineFailed, match="probe-demo-2-a"):
        applied(refusing, app("a", "live"), gateway("a", generation=2))
    assert refusing.entries == named(*before)


def test_a_failed_application_of_an_earlier_apply_is_removed_before_it_is_declared_again() -> None:
    dashboard = FakeDashboard(app("a"), app("b"), gateway("a"), broken=("m-b",))
    one = target(dashboard)
    plan = plan_ray(one.look(), named(app("b"), gateway("b", generation=2)), STACK)
    dashboard.broken = ()
    one.apply(plan)
    assert dashboard.puts[:2] == [[GATE, "m-a"], [GATE, "m-a", "m-b"]]
    assert dashboard.puts[-1] == [GATE, "m-b"]


def test_a_dashboard_that_fails_for_a_moment_ends_no_apply() -> None:
    class Shaky(FakeDashboard):
        def put(self, config: dict[str, Any]) -> None:
            super().put(config)
            self.absent = [Unavailable("the head restarts"), TimedOut("no answer")]

    dashboard = Shaky(app("a"), gateway("a"))
    applied(dashboard, app("b"), gateway("b", generation=2))
    assert dashboard.puts[-1] == [GATE, "m-b"]
    dashboard.absent = [Unavailable("gone")] * 9
    with pytest.raises(Unavailable, match="gone"):
        applied(dashboard, app("c"), gateway("c", generation=3))


def test_an_unhealthy_application_has_time_to_recover() -> None:
    dashboard = FakeDashboard(app("a"), gateway("a"), unhealthy={"m-b": 20})
    applied(dashboard, app("b"), gateway("b", generation=2))
    assert dashboard.puts[-1] == [GATE, "m-b"]
    dashboard = FakeDashboard(app("a"), gateway("a"), unhealthy={"m-b": 10_000})
    with pytest.raises(EngineFailed, match="m-b"):
        applied(dashboard, app("b"), gateway("b", generation=2))


@pytest.mark.parametrize("broken", ["m-b", "probe", GATE])
def test_a_failure_before_the_switch_is_complete_restores_the_applications(broken: str) -> None:
    before = [OTHER, app("a"), gateway("a")]
    dashboard = FakeDashboard(*before, broken=(broken,))
    with pytest.raises(EngineFailed, match="no reason is given"):
        applied(dashboard, app("b"), gateway("b", generation=2))
    assert dashboard.entries == named(*before)
    if broken != GATE:
        assert all(GATE in put and "m-a" in put for put in dashboard.puts)


def test_a_wait_has_an_end_and_another_apply_is_noticed() -> None:
    dashboard = FakeDashboard(app("a"), gateway("a"), stuck=("m-b",))
    with pytest.raises(TimedOut, match="m-b: not done in 20 s"):
        applied(dashboard, app("b"), gateway("b"), within=20.0)
    assert dashboard.entries == named(app("a"), gateway("a"))


@pytest.mark.parametrize(
    ("before", "desired"),
    [
        ([gateway("a", generation=6)], [app("b"), gateway("b", generation=7)]),
        ([gateway("a", generation=7)], [app("b"), gateway("b", generation=8)]),
        ([gateway("a", generation=6)], [app("a"), gateway("a", "b", generation=7)]),
        ([gateway("a", generation=6)], []),
        ([], [app("a"), app("b"), gateway("b")]),
    ],
)
def test_each_kind_of_change_notices_another_apply(before: list[dict[str, Any]], desired: list[dict[str, Any]]) -> None:
    """Also one with the same number, which another machine has counted on from the same revision."""
    dashboard = FakeDashboard(app("a"), *before)
    one = target(dashboard)
    plan = plan_ray(one.look(), named(*desired), STACK)
    dashboard.entries[GATE] = gateway("a", "c", generation=7)
    with pytest.raises(Conflict, match="another apply"):
        one.apply(plan)
    assert dashboard.puts == [], "the stack of the other apply stays as it is"


def test_a_failure_restores_nothing_over_another_apply() -> None:
    theirs = gateway("a", "c", generation=2)

    class Overtaken(FakeDashboard):
        def details(self) -> dict[str, Any]:
            if len(self.puts) == 1 and self.seen.get("m-b", 0) > 3:
                self.entries[GATE], self.broken = theirs, ("m-b",)
                self.seen.setdefault(GATE, 9)
            return super().details()

    dashboard = Overtaken(app("a"), gateway("a"), stuck=("m-b",))
    with pytest.raises(EngineFailed):
        applied(dashboard, app("b"), gateway("b", generation=2))
    assert len(dashboard.puts) == 1
    assert dashboard.entries[GATE] == theirs


def test_an_application_that_another_apply_removes_ends_the_wait() -> None:
    class Removed(FakeDashboard):
        def details(self) -> dict[str, Any]:
            if self.seen.get("m-b", 0) > 3:
                del self.entries["m-b"]
            return super().details()

    dashboard = Removed(app("a"), gateway("a"), stuck=("m-b",))
    with pytest.raises(Conflict, match="another apply"):
        applied(dashboard, app("b"), gateway("b", generation=2))
    assert len(dashboard.puts) == 1


def test_a_removed_application_of_the_snapshot_is_missing_in_the_status() -> None:
    tree = status_tree(target(FakeDashboard(app("a"), gateway("a", "b"))))
    assert tree["state"] == "degraded"
    assert [(row["name"], row["state"]) for row in tree["applications"] if row["name"] == "b"] == [("b", "MISSING")]


def test_an_apply_that_loses_the_switch_to_another_one_leaves_its_stack() -> None:
    theirs = [app("a"), app("c"), gateway("a", "c", generation=2)]

    class Overtaken(FakeDashboard):
        def put(self, config: dict[str, Any]) -> None:
            super().put(config)
            if len(self.puts) == 2:  # after the probe is declared
                self.entries |= named(*theirs)
                self.seen |= dict.fromkeys((entry["name"] for entry in theirs), 9)

    dashboard = Overtaken(app("a"), gateway("a"))
    with pytest.raises(Conflict, match="another apply"):
        applied(dashboard, app("b"), gateway("b", generation=2))
    assert len(dashboard.puts) == 2
    assert dashboard.entries[GATE] == theirs[-1]
