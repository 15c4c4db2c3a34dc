"""Laws of the token bucket, for clocks that go forward, stand still and jump."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mullama.runtime.rates.bucket import Bucket

CAPACITY = st.floats(1, 1e9)
SECONDS = st.sampled_from([1.0, 60.0, 3600.0, 86400.0])
TIMES = st.floats(-1e10, 1e10)
DELAYS = st.lists(st.floats(0, 1e6), max_size=40)


def bucket(capacity: float, seconds: float, at: float = 0.0, level: float | None = None) -> Bucket:
    return Bucket(capacity=capacity, seconds=seconds, level=capacity if level is None else level, at=at)


def accepted(of: Bucket, now: float, tries: int) -> int:
    """Return how many of these requests at one moment are accepted."""
    of.refill(now)
    count = 0
    while count < tries and of.wait() == 0:
        of.take(1)
        count += 1
    return count


@given(st.integers(1, 50), SECONDS, DELAYS)
def test_no_more_than_the_burst_and_the_refill_are_accepted(capacity: int, seconds: float, delays: list[float]) -> None:
    limit, now, total = bucket(capacity, seconds), 0.0, 0
    for delay in delays:
        now += delay
        total += accepted(limit, now, capacity + 1)
    assert total <= capacity + now * capacity / seconds + 1e-6


@given(CAPACITY, SECONDS, st.lists(TIMES, min_size=1, max_size=20))
def test_a_clock_that_jumps_never_holds_more_than_the_burst(
    capacity: float, seconds: float, times: list[float]
) -> None:
    limit = bucket(capacity, seconds, level=0.0)
    for now in times:
        limit.refill(now)
        assert limit.level <= limit.capacity


@given(st.integers(1, 50), SECONDS, TIMES, TIMES)
def test_a_clock_that_jumps_back_gives_nothing_and_locks_nobody_out(
    capacity: int, seconds: float, before: float, after: float
) -> None:
    limit = bucket(capacity, seconds, at=max(before, after), level=0.0)
    limit.refill(min(before, after))
    assert limit.level == 0
    wait = limit.wait()
    assert 0 < wait <= seconds
    # From there on, it refills by the new clock.
    assert accepted(limit, min(before, after) + seconds * 1.001 + 1e-3, 1) == 1


@given(CAPACITY, SECONDS, st.floats(0, 1e6))
def test_the_wait_is_as_long_as_it_is_said(capacity: float, seconds: float, debt: float) -> None:
    limit = bucket(capacity, seconds, level=-debt)
    wait = limit.wait()
    limit.refill(wait * (1 + 1e-9) + 1e-9)
    assert limit.wait() <= seconds * 1e-6


@given(CAPACITY, SECONDS, st.floats(0, 1), CAPACITY, SECONDS)
def test_a_new_limit_keeps_the_used_share(
    capacity: float, seconds: float, share: float, larger: float, other: float
) -> None:
    limit = bucket(capacity, seconds, level=capacity * share)
    limit.resize(larger, other)
    assert math.isclose(limit.level, larger * share, rel_tol=1e-9, abs_tol=1e-9)
