"""A fleet of three real hosts on a network: one vanishes between or in its steps, and the disk of one is full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.stack import eventually
from tests.hosts.fleet import NAMES, NetworkFleet, full, states, x

pytestmark = pytest.mark.timeout(240)


def test_a_host_that_is_cut_off_in_a_rollout_stops_it_and_is_planned_around(fleet: NetworkFleet) -> None:
    only_b = {"y": {"from": fleet.source("y"), "hosts": ["b"]}}
    fleet.declare({**x(fleet, "one"), **only_b})
    fleet.apply()
    fleet.declare({**x(fleet, "two"), **only_b}, canary=1, pause="1s")
    try:
        outcome = fleet.run(sleep=lambda _: fleet.network.cut("hb"))
        assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
        assert outcome.hosts["b"].outcome in ("unavailable", "timed_out")
        assert fleet.systems("a", "c") == {"a": "two", "c": "one"}

        refused = fleet.apply(code=11)
        assert "apply would change nothing; --skip b plans without it" in refused
        around = fleet.apply("--skip", "b")
        assert "y waits for b" in around
        assert "x has 2 of 3 replicas without b" in around
        assert fleet.systems("a", "c") == {"a": "two", "c": "two"}
    finally:
        fleet.network.mend("hb")
    shown = fleet.command("diff", code=2)
    assert "b:\n  ~ x" in shown
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "two")
    assert "no changes" in fleet.command("diff").splitlines()[-1]


def test_a_host_that_dies_in_its_own_step_ends_the_rollout(fleet: NetworkFleet) -> None:
    """Its load hangs, so it dies in the middle of it."""
    fleet.declare(x(fleet, "three"))
    fleet.apply()
    hanging = {"from": fleet.source("z", faults=True, on_open="hang"), "hosts": ["b"]}
    fleet.declare({**x(fleet, "four"), "z": hanging}, canary=1)

    def observe(host: str, event: Mapping[str, Any]) -> None:
        if host == "b" and event.get("event") == "phase" and event.get("phase") == "load":
            fleet.stacks["b"].kill()

    outcome = fleet.run(observe=observe)
    assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
    fleet.declare(x(fleet, "four"))
    fleet.apply("--skip", "b")
    fleet.stacks["b"].serve()  # it begins the load again that hangs
    eventually(lambda: fleet.answers("b"), fleet.stacks["b"].log)
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "four")


def test_a_full_disk_on_one_host_stops_the_rollout_and_the_host_serves_on(fleet: NetworkFleet) -> None:
    fleet.declare(x(fleet, "five"))
    fleet.apply()
    fleet.declare(x(fleet, "six"))
    with full(fleet.stacks["b"].home):
        report = fleet.apply(code=11)
        assert "b: failed: the lease cannot be saved: no space left on device" in report
        assert fleet.systems(*NAMES) == {"a": "six", "b": "five", "c": "five"}
        answer = fleet.ports()["b"].client.post(
            "/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "4 tokens"}]}
        )
        assert answer["choices"][0]["message"]["content"]
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "six")
