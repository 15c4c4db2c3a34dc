"""Hosts of a fleet that differ: in their version, their clock, their key, or their speed; and a second controller."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import mullama
from mullama.targets.fleet.lease import FleetLeaseHold
from tests.e2e.stack import eventually
from tests.hosts.fleet import NAMES, NetworkFleet, states, x
from tests.hosts.servers import KEY

pytestmark = pytest.mark.timeout(240)
CLOCK = """
import time
before = time.time
time.time = lambda: before() + 86400
"""


@contextmanager
def restarted(fleet: NetworkFleet, name: str, **variables: str) -> Iterator[None]:
    """Run the server of a host with other variables."""
    stack = fleet.stacks[name]
    kept = dict(stack.variables)
    try:
        stack.kill()
        stack.variables |= variables
        stack.serve()
        stack.ready()
        yield
    finally:
        stack.kill()
        stack.variables = kept
        stack.serve()
        stack.ready()


def package(folder: Path, version: str) -> str:
    """Make a mullama of another version in a folder; return the folder."""
    here = Path(mullama.__file__).parent
    made = folder / version / "mullama"
    made.mkdir(parents=True)
    for entry in here.iterdir():
        if entry.name not in ("__init__.py", "__pycache__"):
            (made / entry.name).symlink_to(entry)
    text = (here / "__init__.py").read_text()
    (made / "__init__.py").write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', text))
    return str(made.parent)


def test_a_host_one_minor_version_behind_changes_with_the_others_and_an_older_one_is_refused(
    fleet: NetworkFleet, tmp_path: Path
) -> None:
    fleet.declare(x(fleet, "one"))
    fleet.apply()
    fleet.declare(x(fleet, "two"))
    with restarted(fleet, "b", PYTHONPATH=package(tmp_path, "0.0.9")):
        refused = fleet.apply(code=9)
        assert f"b: runs mullama 0.0.9, and this is {mullama.__version__}" in refused
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "one")
    with restarted(fleet, "b", PYTHONPATH=package(tmp_path, "0.1.0")):
        assert "0.1.0" in fleet.command("status")
        fleet.apply()
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "two")


def test_a_second_controller_is_refused_with_the_name_of_the_first_and_an_old_fence_by_each_host(
    fleet: NetworkFleet,
) -> None:
    fleet.declare(x(fleet, "three"))
    fleet.apply()
    fleet.declare(x(fleet, "four"))
    with FleetLeaseHold(list(fleet.ports().values()), "fleet", "ann@laptop:1"):
        assert "ann@laptop:1" in fleet.apply(code=10)
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "three")

    def other_applies(_: float) -> None:
        """Another controller gets the lease and applies while this one waits, as after a long sleep of its machine."""
        for host in fleet.ports().values():
            host.release_lease("the test")
        fleet.apply()

    fleet.declare(x(fleet, "five"), canary=1, pause="1s")
    outcome = fleet.run(sleep=other_applies)
    assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
    assert "the fence" in outcome.hosts["b"].message
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "five")


def test_clocks_that_are_a_day_apart_do_no_harm(fleet: NetworkFleet, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    with restarted(fleet, "b", PYTHONPATH=str(tmp_path)):
        fleet.declare(x(fleet, "six"), canary=1, pause="1s")
        assert states(fleet.run()) == dict.fromkeys(NAMES, "changed")
        fleet.declare(x(fleet, "seven"))
        fleet.apply()
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "seven")
        fleet.command("undo", "--yes")
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "six")
        rows = fleet.command("history").splitlines()
        assert {row.split()[0] for row in rows[1:]} == set(NAMES)


def test_a_host_with_another_key_is_named_and_no_host_changes(fleet: NetworkFleet) -> None:
    fleet.declare(x(fleet, "eight"))
    fleet.apply()
    fleet.declare(x(fleet, "nine"))
    fleet.stacks["b"].kill()
    fleet.stacks["b"].variables["HOSTS_KEY"] = "sk-of-another-fleet"
    fleet.stacks["b"].serve()
    fleet.stacks["b"].ready()
    try:
        refused = fleet.apply(code=None)
        assert "b: the API key is not valid (see fleet.hosts.b.key)" in refused
        assert fleet.systems("a", "c") == {"a": "eight", "c": "eight"}
    finally:
        fleet.stacks["b"].kill()
        fleet.stacks["b"].variables["HOSTS_KEY"] = fleet.control.variables["HOSTS_KEY"]
        fleet.stacks["b"].serve()
        fleet.stacks["b"].ready()
    fleet.apply()


def test_a_host_that_stops_answering_and_never_fails_ends_the_rollout_in_time(fleet: NetworkFleet) -> None:
    """Its server is stopped by a signal in its step: connections are accepted, and nothing answers."""
    fleet.declare(x(fleet, "ten"))
    fleet.apply()
    fleet.declare(x(fleet, "eleven"), canary=1)
    stopped: list[psutil.Process] = []

    def observe(host: str, event: Mapping[str, Any]) -> None:
        if host == "b" and not stopped:
            stopped.extend(fleet.stacks["b"].processes())
            for process in stopped:
                process.send_signal(signal.SIGSTOP)

    try:
        outcome = fleet.run(observe=observe, within=8.0)
        assert stopped
        assert states(outcome) == {"a": "changed", "b": "failed", "c": "not reached"}
        assert outcome.hosts["b"].outcome == "timeout"
        assert fleet.systems("a", "c") == {"a": "eleven", "c": "ten"}
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    eventually(lambda: fleet.answers("b"), fleet.stacks["b"].log)
    fleet.apply()
    assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "eleven")


def test_a_host_on_a_slow_link_changes_with_the_others(fleet: NetworkFleet) -> None:
    fleet.declare(x(fleet, "twelve"))
    fleet.network.slow("hb", rate="256kbit")
    try:
        fleet.apply()
        assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "twelve")
    finally:
        fleet.network.slow("hb", rate="1gbit")


def test_a_key_that_one_host_cannot_read_is_in_the_plan_and_stops_the_rollout_there(fleet: NetworkFleet) -> None:
    keys = {"hosts": {"secret": KEY, "roles": ["admin"]}, "more": {"secret": {"from_env": "MORE_KEY"}}}
    with restarted(fleet, "a", MORE_KEY="sk-more"), restarted(fleet, "c", MORE_KEY="sk-more"):
        fleet.declare(x(fleet, "thirteen"))
        fleet.apply()
        fleet.declare(x(fleet, "fourteen"), auth={"keys": keys})
        missing = "auth.keys.more.secret: the environment variable MORE_KEY is missing or empty"
        shown = fleet.command("diff", code=2)
        assert f"warning: {missing}" in shown[shown.index("b:") : shown.index("c:")]
        report = fleet.apply(code=None)
        assert f"b: failed: {missing}" in report
        assert fleet.systems(*NAMES) == {"a": "fourteen", "b": "thirteen", "c": "thirteen"}
        with restarted(fleet, "b", MORE_KEY="sk-more"):
            fleet.apply()
            assert fleet.systems(*NAMES) == dict.fromkeys(NAMES, "fourteen")
            fleet.declare(x(fleet, "fifteen"))
            fleet.apply()
