"""A rollout on fake hosts: order, failures, pauses, interruption, continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mullama.client.http import StreamStop
from mullama.errors import TimedOut, TransferFailed, Unavailable
from mullama.targets.fleet.execute import FleetOutcome, FleetRun, Stage
from mullama.targets.fleet.hosts import HostStep
from tests.targets.fleet.fake_hosts import FakeHost, Gate


def manifest(*models: str) -> dict[str, Any]:
    return {"models": {name: {} for name in models}}


def stage(number: int, tree: Mapping[str, Any], hosts: Sequence[str], **more: Any) -> Stage:
    step = HostStep(manifest=tree, fence=1, mark=f"prod/1.{number}", by="ann")
    return Stage(title="add", steps=dict.fromkeys(hosts, step), **more)


@pytest.fixture
def hosts() -> dict[str, FakeHost]:
    return {name: FakeHost(name) for name in "abc"}


def rollout(hosts: dict[str, FakeHost], stages: Sequence[Stage], **more: Any) -> FleetRun:
    revisions = {name: host.revision for name, host in hosts.items()}
    return FleetRun(hosts, stages, revisions, **{"require": lambda: None, **more})


def states(outcome: FleetOutcome) -> str:
    return " ".join(f"{name}={host.state}" for name, host in outcome.hosts.items())


def test_stages_follow_each_other_with_the_revision_of_the_one_before(hosts: dict[str, FakeHost]) -> None:
    seen: list[Any] = []
    stages = [stage(1, manifest("m"), "a"), stage(2, manifest("m", "n"), "ab")]

    outcome = rollout(hosts, stages, observe=lambda host, event: seen.append((host, event["event"]))).run()

    assert (outcome.outcome, states(outcome)) == ("applied", "a=changed b=changed c=unchanged")
    assert (outcome.hosts["a"].done, outcome.hosts["a"].generation) == (2, 3)
    assert hosts["a"].manifest == hosts["b"].manifest == manifest("m", "n")
    assert [kept["origin"].get("fleet") for kept in hosts["a"].history] == ["prod/1.2", "prod/1.1", None]
    assert seen[:3] == [("", "stage"), ("a", "phase"), ("a", "host")]


def test_a_repeated_apply_finds_nothing_to_do(hosts: dict[str, FakeHost]) -> None:
    rollout(hosts, [stage(1, manifest("m"), "abc")]).run()
    assert states(rollout(hosts, [stage(1, manifest("m"), "abc")]).run()) == "a=unchanged b=unchanged c=unchanged"


def test_the_hosts_of_a_stage_change_at_the_same_time(hosts: dict[str, FakeHost]) -> None:
    gate = Gate()

    def last(stop: StreamStop) -> None:
        for _ in "ab":
            assert gate.reached.acquire(timeout=5)
        gate.open()

    hosts["a"].script, hosts["b"].script, hosts["c"].script = [gate], [gate], [last]
    assert rollout(hosts, [stage(1, manifest("m"), "abc")]).run().outcome == "applied"


@pytest.mark.parametrize(
    ("fault", "outcome", "message"),
    [
        (TransferFailed("b: no space left on device"), "transfer", "no space left on device"),
        (Unavailable("b: no server answers at http://b"), "unavailable", "no server answers at http://b"),
        (TimedOut("b is slow: it did not answer within 1h"), "timeout", "b is slow: it did not answer within 1h"),
        (
            {"outcome": "partly_applied", "message": "revision 2", "models": {"m": {"ok": False, "message": "bad"}}},
            "partly_applied",
            "m: bad",
        ),
        ({"outcome": "refused", "message": "m is protected"}, "refused", "m is protected"),
    ],
)
def test_the_first_host_that_fails_ends_the_rollout(
    hosts: dict[str, FakeHost], fault: Any, outcome: str, message: str
) -> None:
    """A full disk, a host that vanishes, a slow one, a model that does not load, a refusal: the others stay."""
    hosts["b"].script = [fault]
    ended = rollout(hosts, [stage(n, manifest("m"), host) for n, host in enumerate("abc", 1)]).run()
    assert (ended.outcome, states(ended)) == (outcome, "a=changed b=failed c=not reached")
    assert ended.hosts["b"].message == message
    assert hosts["c"].manifest == manifest()


def test_hosts_beside_a_failed_one_are_waited_for(hosts: dict[str, FakeHost]) -> None:
    gate = Gate()

    def fail(stop: StreamStop) -> Any:
        assert gate.reached.acquire(timeout=5)
        gate.open()
        return Unavailable("b: gone")

    hosts["a"].script, hosts["b"].script = [gate], [fail]
    ended = rollout(hosts, [stage(1, manifest("m"), "ab"), stage(2, manifest("m"), "c")]).run()
    assert states(ended) == "a=changed b=failed c=not reached"


def test_a_host_that_was_changed_since_the_plan_is_not_overwritten(hosts: dict[str, FakeHost]) -> None:
    run = rollout(hosts, [stage(1, manifest("m"), "a")])
    hosts["a"].commit(manifest("other"), None, by="bob")
    ended = run.run()
    assert (ended.outcome, ended.hosts["a"].message) == ("conflict", "the applied revision is a2, not a1")
    assert hosts["a"].manifest == manifest("other")


def test_a_model_that_does_not_serve_after_the_change_is_a_failure_of_its_host(hosts: dict[str, FakeHost]) -> None:
    for host in hosts.values():
        host.states = {"m": "ready", "broken before": "failed"}

    def fail(stop: StreamStop) -> None:
        hosts["b"].states = {"m": "failed", "broken before": "failed"}

    hosts["b"].script = [fail]
    wave = {"models": {name: ["m", "broken before"] for name in "abc"}}
    ended = rollout(hosts, [stage(n, manifest("m"), host, **wave) for n, host in enumerate("abc", 1)]).run()
    assert (states(ended), ended.hosts["b"].message) == (
        "a=changed b=failed c=not reached",
        "m does not serve after the change",
    )


def test_a_controller_without_the_lease_changes_no_further_host(hosts: dict[str, FakeHost]) -> None:
    lost = iter([None, Unavailable("the lease is lost")])

    def require() -> None:
        if (error := next(lost)) is not None:
            raise error

    ended = rollout(hosts, [stage(n, manifest("m"), host) for n, host in enumerate("abc", 1)], require=require).run()
    assert states(ended) == "a=changed b=failed c=not reached"


@pytest.mark.parametrize(("answer", "ended"), [(True, "applied"), (False, "paused"), (None, "paused")])
def test_a_manual_pause_asks_and_ends_without_an_answer(
    hosts: dict[str, FakeHost], answer: bool | None, ended: str
) -> None:
    confirm = None if answer is None else lambda question: bool(answer)
    stages = [stage(1, manifest("m"), "a", pause="manual"), stage(2, manifest("m"), "bc")]
    outcome = rollout(hosts, stages, confirm=confirm).run()
    assert outcome.outcome == ended
    assert (outcome.hosts["c"].state == "changed") is (answer is True)


def test_a_pause_waits(hosts: dict[str, FakeHost]) -> None:
    slept: list[float] = []
    stages = [stage(1, manifest("m"), "a", pause=30.0), stage(2, manifest("m"), "bc", pause=30.0)]
    assert rollout(hosts, stages, sleep=slept.append).run().outcome == "applied"
    assert slept == [30.0]  # none after the last stage


def test_an_interrupt_leaves_the_hosts_that_change_to_themselves(hosts: dict[str, FakeHost]) -> None:
    gate, stops = Gate(), []

    def hang(stop: StreamStop) -> None:
        stops.append(stop)
        gate(stop)

    def interrupt(host: str, event: Mapping[str, Any]) -> None:
        if event["event"] == "slow" and stops:  # b has begun
            raise KeyboardInterrupt

    hosts["b"].script = [hang]
    stages = [stage(n, manifest("m"), host) for n, host in enumerate("abc", 1)]
    run = rollout(hosts, stages, observe=interrupt, slow=0.0)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    gate.open()
    assert (run.outcome.outcome, states(run.outcome)) == ("interrupted", "a=changed b=running c=not reached")
    assert stops[0].stopped


def test_a_host_without_progress_is_shown_as_slow(hosts: dict[str, FakeHost]) -> None:
    gate, seen = Gate(), []

    def observe(host: str, event: Mapping[str, Any]) -> None:
        if event["event"] == "slow":
            seen.append((host, event["message"]))
            gate.open()

    hosts["a"].script = [gate]
    rollout(hosts, [stage(1, manifest("m"), "a")], observe=observe, slow=0.0).run()
    assert (seen[0][0], seen[0][1].partition(" for ")[0]) == ("a", "slow: no progress")
