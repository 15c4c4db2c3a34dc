"""The bound on the servers that forward one request."""

from __future__ import annotations

import pytest

from mullama.runtime.peers.hops import hops_of, may_forward


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ()),
        ("", ()),
        ("a1", ("a1",)),
        ("a1, b2,c3", ("a1", "b2", "c3")),
        ("A b, \u00e9, , " + "x" * 33, ("0", "0", "0", "0")),
        (", ".join("abcdefgh"), ("a", "b", "c", "d", "e")),
    ],
)
def test_the_header_is_read(header: str | None, expected: tuple[str, ...]) -> None:
    assert hops_of(header) == expected


@pytest.mark.parametrize(
    ("hops", "expected"),
    [((), True), (("b",), True), (("a",), False), (("b", "a"), False), (("b", "c", "d", "e"), False)],
)
def test_a_request_is_not_forwarded_twice_nor_further_than_the_bound(hops: tuple[str, ...], expected: bool) -> None:
    assert may_forward(hops, "a") is expected
