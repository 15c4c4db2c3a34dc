"""Sizes, durations and shares as they are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.spec.values import parse_duration, parse_share, parse_size, share_of

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
    (4096, 4096),
]


@pytest.mark.parametrize(("written", "size"), SIZES)
def test_a_size_is_a_number_of_bytes(written: object, size: int) -> None:
    assert parse_size(written) == size


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
    (5, 5),
    (2.5, 2.5),
]


@pytest.mark.parametrize(("written", "seconds"), DURATIONS)
def test_a_duration_is_a_number_of_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "10", "10 m", "-1s", "1w", "m10", "1h 30m", "Never", "1e3s"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(written)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]), st.integers(0, 10**6))
def test_durations_add_up(n: int, unit: str, m: int) -> None:
    parts = parse_duration(f"{n}{unit}"), parse_duration(f"{m}s")
    assert parse_duration(f"{n}{unit}{m}s") == pytest.approx(sum(map(float, parts)))  # type: ignore[arg-type]


def test_a_share_is_of_what_there_is_and_a_size_is_itself() -> None:
    assert share_of(parse_share("80%"), 1000) == 800  # type: ignore[arg-type]
    assert share_of(parse_share("1GiB"), 1000) == 2**30  # type: ignore[arg-type]
    assert share_of("0%", 1000) == 0
    assert share_of("100%", 999) == 999
    assert share_of(None, 1000) is None


@given(st.integers(0, 100), st.integers(0, 2**50))
def test_a_share_is_never_more_than_the_whole(percent: int, total: int) -> None:
    found = share_of(f"{percent}%", total)
    assert found is not None
    assert 0 <= found <= total
