"""Shares of a resource, as the manifest writes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.spec.readers import parse_share, read_duration, read_size, share_of


def test_values_that_are_not_text_are_left_to_the_type() -> None:
    assert [read_size(4096), read_duration(5), read_duration(2.5)] == [4096, 5, 2.5]


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
