"""The fleet as one of its hosts sees it: values."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.codec import from_tree
from mullama.controller.fleet.view import FleetFacts, HostLook, HostStatus, fleet_view, part_in_fleet
from mullama.runtime.fleet import RolloutHost, RolloutModel, RolloutRecord
from mullama.struct import replace

GIB = 1 << 30


def host(state: Any = "changed", revision: str | None = "r1", **more: Any) -> RolloutHost:
    return RolloutHost(url="http://host", state=state, revision=revision, steps=1, **more)


def record(ended: Any = "applied", **hosts: RolloutHost) -> RolloutRecord:
    return RolloutRecord(
        fleet="prod", host="a", kind="apply", holder="ann@box:1", fence=4, number=3, began=10.0, updated=20.0,
        ended=ended, stage=2, stages=3, title="change the models", canary=("a",),
        hosts=hosts or {"a": host(), "b": host(), "c": host()},
        models={"m": RolloutModel(hosts=("a", "b"), replicas=2), "n": RolloutModel(hosts=("c",), replicas=2)},
    )  # fmt: skip


def model(name: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    row = {"name": name, "state": state, "active": 1, "waiting": 2, "memory": GIB, "progress": None, "conditions": []}
    return {**row, **more}


def status(*models: dict[str, Any], revision: str = "r1", **more: Any) -> HostStatus:
    tree = {
        "state": "ready", "version": "1.0", "uptime": 5.0, "generation": 7, "revision": revision,
        "origin": {"fleet": "prod/4.2"}, "models": [*models],
        "memory": {
            "used": GIB,
            "places": [{"name": "", "used": 1, "budget": 2}, {"name": "CUDA0", "used": 3, "budget": 4}],
        },
        "machine": {
            "ram_total": 8 * GIB, "ram_available": 6 * GIB, "cores": 4,
            "gpus": [{"name": "CUDA0", "description": "H200", "total": 9, "free": 8},
                     {"name": "CUDA1", "description": "H200", "total": 9, "free": 9, "fault": "lost"}],
        },
        "fleet": {"name": "prod", "host": "a", "fence": 4, "number": 3},
        **more,
    }  # fmt: skip
    return from_tree(HostStatus, tree, "status")


def view(own: HostStatus, newest: RolloutRecord | None, lease: Any = None, **others: HostLook) -> dict[str, Any]:
    return fleet_view(FleetFacts(when=30.0, status=own, lease=lease, record=newest, others=others))


def test_hosts_have_their_state_load_and_memory_against_the_budget() -> None:
    seen = view(status(model("m")), record(), b=HostLook(status=status(model("m", "loading"))))
    rows = {row["name"]: row for row in seen["hosts"]}
    assert [(row["state"], row["this"]) for row in rows.values()] == [
        ("ready", True), ("ready", False), ("not asked", False),
    ]  # fmt: skip
    own = rows["a"]
    assert (own["models"], own["ready"], own["active"], own["waiting"]) == (1, 1, 1, 2)
    assert (own["generation"], own["step"], own["changed_since"]) == (7, "prod/4.2", False)
    assert rows["b"]["ready"] == 0
    assert rows["c"]["memory"] is None
    assert own["memory"] == {
        "used": GIB,
        "places": [
            {"name": "", "description": "", "total": 8 * GIB, "free": 6 * GIB, "fault": "", "used": 1, "budget": 2},
            {"name": "CUDA0", "description": "H200", "total": 9, "free": 8, "fault": "", "used": 3, "budget": 4},
            {"name": "CUDA1", "description": "H200", "total": 9, "free": 9, "fault": "lost", "used": None,
             "budget": None},
        ],
    }  # fmt: skip


def test_a_host_that_does_not_answer_keeps_its_reason_and_its_result() -> None:
    hosts = {
        "a": host(), "b": host("failed", outcome="unavailable", message="gone", hint="start it"),
        "c": host("away", None), "d": host("not reached"),
    }  # fmt: skip
    seen = view(
        status(), record("failed", **hosts), b=HostLook(reason="not reachable", hint="is it running?"),
        c=HostLook(reason="no route"), d=HostLook(asked=False, reason="no peer"),
    )  # fmt: skip
    rows = {row["name"]: (row["state"], row["reason"], row["hint"]) for row in seen["hosts"][1:]}
    assert rows == {
        "b": ("no answer", "not reachable", "is it running?"),
        "c": ("away", "no route", ""),
        "d": ("not asked", "no peer", ""),
    }
    assert seen["hosts"][1]["result"] == {
        "state": "failed", "steps_done": 0, "steps": 1, "outcome": "unavailable", "message": "gone", "hint": "start it",
    }  # fmt: skip


def test_models_are_shown_where_they_are_and_where_they_belong() -> None:
    broken = model("m", "failed", conditions=[{"reason": "LoadFailed", "message": "bad header"}])
    seen = view(status(broken, model("extra")), record(), b=HostLook(status=status()))
    places = {
        row["name"]: {place["host"]: (place["state"], place["wanted"]) for place in row["places"]}
        for row in seen["models"]
    }
    assert places == {
        "extra": {"a": ("ready", False)},
        "m": {"a": ("failed", True), "b": ("absent", True)},
        "n": {"c": ("unknown", True)},
    }
    counts = {row["name"]: (row["ready"], row["replicas"]) for row in seen["models"]}
    assert counts == {"extra": (1, None), "m": (0, 2), "n": (0, 2)}
    assert seen["models"][1]["places"][0]["reason"] == seen["hosts"][0]["faults"][0].removeprefix("m: ")
    assert seen["hosts"][0]["faults"] == ["m: LoadFailed: bad header"]


def test_after_an_undo_the_places_are_those_that_the_hosts_show() -> None:
    seen = view(status(model("m")), replace(record(), kind="undo", models={}))
    assert [(row["replicas"], row["places"][0]["wanted"]) for row in seen["models"]] == [(None, None)]


@pytest.mark.parametrize(
    ("ended", "holder", "state"),
    [
        (None, "ann@box:1", "running"),
        (None, "bob@box:2", "lost"),
        (None, None, "lost"),
        ("failed", "bob@box:2", "failed"),
        ("applied", None, "applied"),
    ],
)
def test_a_rollout_without_an_end_runs_while_its_controller_holds_the_lease(
    ended: Any, holder: str | None, state: str
) -> None:
    lease = None if holder is None else {"holder": holder, "fleet": "prod", "seconds_left": 9.0}
    rollout = view(status(), record(ended), lease)["rollout"]
    assert (rollout["state"], rollout["stage"], rollout["stages"], rollout["canary"]) == (state, 2, 3, ("a",))


@pytest.mark.parametrize(
    ("ended", "left", "revision", "changed"),
    [
        ("applied", host(), "r1", False),
        ("applied", host(), "r2", True),
        ("applied", host("unchanged"), "r2", True),
        ("applied", host(revision=None), "r2", False),
        ("failed", host("failed"), "r2", False),  # it may have committed a part
        ("interrupted", host("running"), "r2", False),
        (None, host(), "r2", False),
    ],
)
def test_a_host_with_another_revision_than_it_was_left_with_is_marked(
    ended: Any, left: RolloutHost, revision: str, changed: bool
) -> None:
    assert view(status(revision=revision), record(ended, a=left))["hosts"][0]["changed_since"] is changed


def test_without_a_record_the_server_shows_itself_alone() -> None:
    seen = view(status(model("m")), None)
    assert (seen["rollout"], [row["this"] for row in seen["hosts"]]) == (None, [True])
    assert seen["models"][0]["replicas"] is None


def test_a_server_that_the_newest_record_lacks_is_no_host_any_more() -> None:
    seen = view(status(), record(b=host()), b=HostLook(status=status()))
    assert (seen["host"], [row["name"] for row in seen["hosts"]]) == (None, ["b"])


def test_a_server_in_no_fleet_has_an_empty_view() -> None:
    seen = view(status(model("m"), fleet=None), record())
    assert (seen["name"], seen["host"], seen["hosts"], seen["models"], seen["rollout"]) == (None, None, [], [], None)


@pytest.mark.parametrize(
    ("mark", "revision", "known", "part"),
    [
        ("", "r1", None, None),
        ("prod/6.1", "r1", None, ("prod", None, 6, 0)),
        ("prod/4.2", "r9", record(), ("prod", "a", 4, 3)),
        ("prod/6.1", "r9", record(), ("prod", "a", 6, 0)),  # a change whose record did not arrive
        ("", "r1", record(), ("prod", "a", 4, 3)),  # a host that the rollout did not change
        ("", "r2", record(), None),  # a manifest of its own
        ("other/2.1", "r2", record(), ("other", None, 2, 0)),
        ("", "r1", record(b=host()), None),
    ],
)
def test_a_server_is_in_the_fleet_of_its_mark_or_of_its_record(
    mark: str, revision: str, known: RolloutRecord | None, part: tuple[Any, ...] | None
) -> None:
    found = part_in_fleet(mark, revision, known)
    assert (None if found is None else (found.name, found.host, found.fence, found.number)) == part
