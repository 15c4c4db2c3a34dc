"""The health of a peer, and the bound on its requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.runtime.peers.health import PeerHealth, crowded


def test_three_failures_in_a_row_eject_and_each_probe_that_fails_doubles_the_wait() -> None:
    health = PeerHealth()
    assert [health.failed(100.0, "refused") for _ in range(3)] == [False, False, True]
    waits = [health.until - 100.0]
    for _ in range(5):
        now = health.until
        assert health.failed(now, "refused")
        waits.append(health.until - now)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert health.succeeded()
    assert (health.ejected, health.failures, health.reason) == (False, 0, "")


def test_a_success_between_failures_keeps_the_peer() -> None:
    health = PeerHealth()
    for _ in range(10):
        assert not health.failed(0.0, "late")
        assert not health.failed(0.0, "late")
        assert not health.succeeded()
    assert not health.ejected


def test_failures_of_requests_on_the_way_do_not_prolong_an_ejection() -> None:
    health = PeerHealth()
    for _ in range(3):
        health.failed(10.0, "gone")
    until = health.until
    assert not health.failed(11.0, "gone")
    assert health.until == until


@pytest.mark.parametrize(
    ("own", "all", "share", "expected"),
    [
        (0, 0, 0.5, False),
        (1, 1, 0.5, False),
        (3, 3, 0.5, False),
        (4, 4, 0.5, True),
        (5, 6, 0.5, True),
        (5, 9, 0.5, False),
        (8, 9, 0.9, False),
        (9, 9, 1.0, False),
    ],
)
def test_a_peer_is_crowded_beyond_a_quarter_more_than_its_share(
    own: int, all: int, share: float, expected: bool
) -> None:
    assert crowded(own, all, share) is expected


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=8))
def test_some_peer_is_never_crowded(peers: list[tuple[int, int]]) -> None:
    running, weights = sum(own for own, _ in peers), sum(weight for _, weight in peers)
    assert not all(crowded(own, running, weight / weights) for own, weight in peers)
