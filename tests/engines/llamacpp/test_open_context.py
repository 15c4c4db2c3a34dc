"""The share of the cores for each engine."""

from __future__ import annotations

import pytest

from mullama.engines.llamacpp.open_context import share_of


@pytest.mark.parametrize(
    ("cores", "of", "parts"),
    [(2, 1, [2]), (2, 2, [1, 1]), (2, 3, [1, 1, 1]), (8, 3, [3, 3, 2]), (8, 2, [4, 4]), (1, 2, [1, 1])],
)
def test_cores_are_parted_without_a_rest(cores: int, of: int, parts: list[int]) -> None:
    assert [share_of(cores, rank, of) for rank in range(of)] == parts
