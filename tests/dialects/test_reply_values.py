"""Times and ids as replies write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from mullama.dialects.reply_values import nanoseconds, prefixed, rfc3339


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1763600000.25, "2025-11-20T00:53:20.250000Z"),
        (-5.0, "1970-01-01T00:00:00.000000Z"),
    ],
)
def test_times_have_microseconds_and_a_z(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


def test_for_ever_is_a_day_that_every_time_zone_can_hold() -> None:
    moment = datetime.fromisoformat(rfc3339(math.inf))

    assert moment.tzinfo == UTC
    assert 2300 < moment.year < 9999


def test_durations_are_whole_nanoseconds_and_never_negative() -> None:
    assert [nanoseconds(s) for s in (0.0, 1.5, -1.0, 1e-9)] == [0, 1_500_000_000, 0, 1]


def test_an_id_wears_the_prefix_of_the_dialect_that_says_it() -> None:
    assert [prefixed(i, "toolu_") for i in ("toolu_1", "call_1", "1")] == ["toolu_1"] * 3
