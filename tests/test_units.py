"""Sizes, durations and ages as text, and the text that is read as one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.units import (
    ago,
    duration,
    duration_literal,
    parse_duration,
    parse_go_duration,
    parse_size,
    size,
    size_literal,
)

SIZES = [
    ("0", 0),
    ("1024", 1024),
    ("10B", 10),
    ("1kB", 1000),
    ("1KB", 1000),
    ("1k", 1000),
    ("200MB", 200_000_000),
    ("8MiB", 8 * 2**20),
    ("8 MiB", 8 * 2**20),
    ("8Mi", 8 * 2**20),
    ("1.5GiB", 3 * 2**29),
    ("4GiB", 4096 * 2**20),
    ("2TiB", 2**41),
]


@pytest.mark.parametrize(("written", "count"), SIZES)
def test_a_size_is_a_number_of_bytes(written: str, count: int) -> None:
    assert parse_size(written) == count


@pytest.mark.parametrize("written", ["", "GiB", "8 apples", "-1", "1e3", "8mib", "1,5GiB", "8MiBs", "٣", "9" * 40])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(written)


DURATIONS = [
    ("30s", 30.0),
    ("250ms", 0.25),
    ("1h30m", 5400.0),
    ("1.5h", 5400.0),
    ("7d", 604800.0),
    ("0s", 0.0),
    ("never", math.inf),
]


@pytest.mark.parametrize(("written", "seconds"), DURATIONS)
def test_a_duration_is_a_number_of_seconds(written: str, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "10", "10 m", "-1s", "1w", "m10", "1h 30m", "Never", "1e3s"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(written)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]), st.integers(0, 10**6))
def test_durations_add_up(n: int, unit: str, m: int) -> None:
    parts = parse_duration(f"{n}{unit}"), parse_duration(f"{m}s")
    assert parse_duration(f"{n}{unit}{m}s") == pytest.approx(sum(parts))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5m", 300.0), ("1h30m", 5400.0), (".5s", 0.5), ("5.s", 5.0), ("10ns", 1e-8), ("2µs", 2e-6)],
)
def test_a_duration_in_the_notation_of_go(written: str, seconds: float) -> None:
    assert parse_go_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "5", "-5m", "1d", "1h" * 40])
def test_text_that_is_no_duration_of_go_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_go_duration(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (0.4, "0 s"), (90, "90 s"), (119, "119 s"), (150, "2 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_is_shown_in_the_largest_unit_that_keeps_its_size(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.integers(1, 10**9))
def test_literals_are_read_back_as_the_same_value(number: int) -> None:
    assert parse_size(size_literal(number)) == number
    assert parse_duration(duration_literal(float(number % 10**6))) == number % 10**6


def test_digits_of_a_size_can_be_given() -> None:
    assert (size(11 * 2**30, digits=2), size(5, digits=2)) == ("11.00 GiB", "5 B")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (86_400 * 400, "1 year ago")],
)
def test_an_age_is_counted_in_its_largest_unit(seconds: float, text: str) -> None:
    assert ago(seconds) == text
