"""The record of a rollout: its value at each moment, and its way to the hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mullama.codec import from_tree
from mullama.errors import NotFound, Unavailable
from mullama.runtime.fleet import MOST_HOSTS, RolloutRecord
from mullama.targets.fleet.execute import FleetRun, HostOutcome, RolloutProgress, Stage
from mullama.targets.fleet.hosts import HostStep
from mullama.targets.fleet.recorder import RolloutRecorder, RolloutSubject, record_of
from tests.targets.fleet.fake_hosts import FakeHost

URLS = {name: f"http://{name}" for name in "abc"}
SUBJECT = RolloutSubject(fleet="prod", kind="apply", holder="ann@box:1", urls=URLS)


def stage(number: int, hosts: str, **more: Any) -> Stage:
    step = HostStep(manifest={"models": {"m": {}}}, fence=7, mark=f"prod/7.{number}", by="ann")
    return Stage(title=f"stage {number}", steps=dict.fromkeys(hosts, step), **more)


def recorded(hosts: dict[str, FakeHost], *stages: Stage, urls: dict[str, str] = URLS, **more: Any) -> RolloutRecorder:
    """Carry out stages with a recorder."""
    subject = RolloutSubject(fleet="prod", kind="apply", holder="ann@box:1", urls=urls)
    recorder = RolloutRecorder(list(hosts.values()), subject, 7, clock=lambda: 50.0)
    revisions = {name: host.revision for name, host in hosts.items()}
    run = FleetRun(hosts, stages, revisions, require=lambda: None, changed=recorder.changed, **more)
    with recorder.follow(run):
        run.run()
    return recorder


def last(host: FakeHost) -> RolloutRecord:
    return from_tree(RolloutRecord, host.records[-1], "record")


def states(record: RolloutRecord) -> dict[str, str]:
    return {name: host.state for name, host in record.hosts.items()}


def test_a_record_has_every_host_and_cuts_long_texts() -> None:
    outcome = HostOutcome(state="failed", steps=2, done=1, outcome="transfer", message="x" * 9000, revision="r")
    progress = RolloutProgress(stage=1, stages=3, title="t", pause=5.0, canary=("a",), hosts={"a": outcome})
    record = record_of(SUBJECT, progress, fence=7, number=2, began=1.0, updated=2.0)
    assert states(record) == {"a": "failed", "b": "away", "c": "away"}
    assert len(record.hosts["a"].message) == 4000
    assert (record.pause, record.canary, record.order, record.ended) == (5.0, ("a",), (7, 2), None)


def test_every_host_gets_its_copy_of_the_end_and_records_grow_in_number() -> None:
    hosts = {name: FakeHost(name) for name in "abc"}
    recorded(hosts, stage(1, "a", canary=True), stage(2, "b"))
    for name, host in hosts.items():
        record = last(host)
        assert (record.host, record.ended, record.stage, record.canary) == (name, "applied", 2, ("a",))
        assert states(record) == {"a": "changed", "b": "changed", "c": "unchanged"}
        assert record.hosts[name].revision == host.revision
        numbers = [one["number"] for one in host.records]
        assert numbers == sorted(set(numbers))


def test_a_rollout_that_stops_leaves_the_host_and_its_reason_on_the_others() -> None:
    hosts = {name: FakeHost(name) for name in "abc"}
    hosts["b"].script = [Unavailable("b: no space left on device", hint="free some")]
    recorded(hosts, stage(1, "a"), stage(2, "b"), stage(3, "c"))
    record = last(hosts["c"])
    assert (record.ended, states(record)) == ("failed", {"a": "changed", "b": "failed", "c": "not reached"})
    failed = record.hosts["b"]
    assert (failed.outcome, failed.message, failed.hint) == ("unavailable", "no space left on device", "free some")


def test_a_record_is_left_while_a_host_changes_and_while_the_controller_asks() -> None:
    hosts = {name: FakeHost(name) for name in "abc"}
    seen = list[RolloutRecord]()

    def await_record(holds: Callable[[RolloutRecord], bool]) -> None:
        host = hosts["c"]
        with host.recorded:
            assert host.recorded.wait_for(lambda: bool(host.records) and holds(last(host)), timeout=30)
            seen.append(last(host))

    def confirm(question: str) -> bool:
        await_record(lambda one: one.pause == "manual")
        return False

    hosts["a"].script = [lambda stop: await_record(lambda one: one.hosts["a"].state == "running")]
    recorded(hosts, stage(1, "a", pause="manual"), stage(2, "b"), confirm=confirm)
    assert [(one.stage, one.title, one.pause, one.ended) for one in (*seen, last(hosts["c"]))] == [
        (1, "stage 1", None, None), (1, "stage 1", "manual", None), (1, "stage 1", None, "paused"),
    ]  # fmt: skip


def test_an_interrupted_rollout_leaves_its_end() -> None:
    hosts = {name: FakeHost(name) for name in "abc"}

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(hosts, stage(1, "a", pause=3.0), stage(2, "b"), sleep=interrupt)
    assert (last(hosts["b"]).ended, last(hosts["b"]).pause) == ("interrupted", 3.0)


@pytest.mark.parametrize("error", [NotFound("b: no such endpoint"), Unavailable("b: gone")])
def test_a_host_that_takes_no_record_changes_nothing_in_the_rollout(error: Exception) -> None:
    hosts = {name: FakeHost(name) for name in "abc"}

    def refuse(record: Any) -> Any:
        raise error

    hosts["b"].leave_record = refuse  # type: ignore[method-assign]
    recorded(hosts, stage(1, "abc"))
    assert states(last(hosts["c"])) == dict.fromkeys("abc", "changed")


def test_the_controller_of_a_very_large_fleet_leaves_none() -> None:
    hosts = {"a": FakeHost("a")}
    recorded(hosts, stage(1, "a"), urls={f"h{number}": "http://h" for number in range(MOST_HOSTS + 1)})
    assert hosts["a"].records == []
