"""The lease of a controller: the majority, its law, and its life on fake hosts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.controller.fleet.lease import LeaseState, granted
from mullama.errors import Conflict, NotFound, Refused, Unavailable
from mullama.runtime.base import LeaseRequest
from mullama.targets.fleet.lease import FleetLeaseHold, Grants
from tests.targets.fleet.fake_hosts import FakeHost


def hold(hosts: list[FakeHost], holder: str, clock: float = 0.0) -> FleetLeaseHold:
    return FleetLeaseHold(hosts, "prod", holder, seconds=30.0, clock=lambda: clock)


@pytest.mark.parametrize(
    ("hosts", "granted_by", "holds"),
    [
        (1, "a", True),
        (1, "", False),
        (2, "a", False),
        (2, "ab", True),
        (3, "ab", True),
        (4, "ab", False),
        (5, "abc", True),
    ],
)
def test_a_majority_of_the_hosts_is_needed(hosts: int, granted_by: str, holds: bool) -> None:
    grants = Grants(hosts=hosts).renewed(granted_by, 100.0, 30.0)
    assert (grants.hold(129.9), grants.hold(130.0)) == (holds, False)


SEND = st.tuples(
    st.sampled_from("xyz"), st.integers(0, 4), st.floats(0, 20), st.floats(0, 40), st.floats(0, 40)
)  # controller, host, pause before it, delay of the request, delay of the answer


@given(st.lists(SEND, max_size=40), st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5))
def test_two_controllers_never_both_hold_a_majority(
    sends: list[tuple[str, int, float, float, float]], offsets: list[float]
) -> None:
    """Requests and answers of any delay, and clocks that are apart: at each moment at most one controller believes."""
    names = "abcde"
    hosts = {name: LeaseState() for name in names}
    now, arrivals = 0.0, []
    for controller, host, pause, there, back in sends:
        now += pause
        arrivals.append((now + there, now, now + there + back, controller, names[host]))
    answers = []
    for at, asked, answered, controller, host in sorted(arrivals):
        state = hosts[host]
        request = LeaseRequest(holder=controller, fleet="prod", seconds=10.0, fence=state.fence + 1)
        try:  # each host counts by its own clock
            hosts[host] = granted(state, request, at + offsets[names.index(host)])
        except Conflict:
            continue
        answers.append((answered, asked, controller, host))
    beliefs = {controller: Grants(hosts=5) for controller in "xyz"}
    for moment, asked, controller, host in sorted(answers):
        beliefs[controller] = beliefs[controller].renewed([host], asked, 10.0)
        assert sum(grants.hold(moment) for grants in beliefs.values()) <= 1


def test_a_hold_takes_the_lease_and_releases_it() -> None:
    hosts = [FakeHost(name) for name in "abc"]
    hosts[1].leases = LeaseState(fence=6)
    with hold(hosts, "ann") as lease:
        lease.require()
        assert lease.fence == 7
        assert {host.lease()["lease"]["holder"] for host in hosts} == {"ann"}
    assert [(host.lease()["fence"], host.lease()["lease"]) for host in hosts] == [(7, None)] * 3


def test_two_controllers_at_once_the_second_one_learns_the_name_of_the_first() -> None:
    hosts = [FakeHost(name) for name in "abc"]
    with hold(hosts, "ann@box:1"), pytest.raises(Conflict, match="ann@box:1 changes the fleet prod now"):
        hold(hosts, "bob@box:2").__enter__()
    with hold(hosts, "bob@box:2"):
        pass


def test_an_interrupt_while_the_lease_is_taken_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [FakeHost(name) for name in "ab"]

    def interrupted(*request: Any) -> None:
        FakeHost.take_lease(hosts[1], *request)
        raise KeyboardInterrupt

    monkeypatch.setattr(hosts[1], "take_lease", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hold(hosts, "ann").__enter__()
    assert [host.lease()["lease"] for host in hosts] == [None, None]


def test_a_controller_that_died_blocks_the_others_until_its_lease_runs_out() -> None:
    now = 50.0
    hosts = [FakeHost(name, lambda: now) for name in "ab"]
    for host in hosts:
        host.take_lease("dead", "prod", 30.0, 4)
    with pytest.raises(Conflict) as raised:
        hold(hosts, "ann").__enter__()
    assert (raised.value.message, raised.value.hint) == (
        "dead changes the fleet prod now",
        "its lease runs out in 30 s unless it is renewed",
    )
    now = 80.0
    with hold(hosts, "ann") as lease:
        assert lease.fence == 5


def test_a_minority_that_does_not_answer_does_not_matter_and_a_majority_does() -> None:
    hosts = [FakeHost(name) for name in "abc"]
    hosts[2].gone = Unavailable("c: no server answers")
    with hold(hosts, "ann") as lease:
        lease.require()
    hosts[1].gone = Unavailable("b: no server answers")
    with pytest.raises(Unavailable, match="1 of 3 hosts granted the lease, and 2 are needed: b: no server answers; c:"):
        hold(hosts, "ann").__enter__()
    assert hosts[0].lease()["lease"] is None


def test_a_host_with_an_older_mullama_is_refused_by_its_name() -> None:
    hosts = [FakeHost(name) for name in "ab"]
    hosts[1].gone = NotFound("b: no such path")
    with pytest.raises(Refused, match="b has no lease, so its mullama is older"):
        hold(hosts, "ann").__enter__()


def test_a_lease_that_was_not_renewed_in_time_stops_the_controller() -> None:
    now = 0.0
    hosts = [FakeHost(name) for name in "ab"]
    with FleetLeaseHold(hosts, "prod", "ann", seconds=30.0, clock=lambda: now) as lease:
        now = 30.0
        with pytest.raises(Conflict, match="the lease of the fleet was lost"):
            lease.require()


@pytest.mark.parametrize(
    ("hosts", "away", "needed"), [(3, 0, 2), (2, 1, 2), (1, 1, 1), (1, 2, 1), (3, 2, 3), (4, 1, 3), (98, 2, 51)]
)
def test_hosts_that_are_away_count_for_the_majority(hosts: int, away: int, needed: int) -> None:
    """So two controllers of which one leaves out a minority cannot both hold the lease."""
    assert Grants(hosts=hosts, away=away).needed == needed
