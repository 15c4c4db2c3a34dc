"""The similarity of `mullama embed --compare`."""

from __future__ import annotations

import pytest

from mullama.cli.inference.tokens import cosine


@pytest.mark.parametrize(
    ("a", "b", "similarity"),
    [([1.0, 0.0], [2.0, 0.0], 1.0), ([1.0, 0.0], [0.0, 3.0], 0.0), ([1.0], [-1.0], -1.0), ([0.0], [1.0], 0.0)],
)
def test_similarity_is_the_cosine(a: list[float], b: list[float], similarity: float) -> None:
    assert cosine(a, b) == pytest.approx(similarity)
