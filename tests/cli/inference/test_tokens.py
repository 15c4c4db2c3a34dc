"""`mullama embed`: the similarity of two texts, and empty texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mullama.cli.inference.tokens import cosine
from tests.cli.conftest import Ran


@pytest.mark.parametrize(
    ("a", "b", "similarity"),
    [([1.0, 0.0], [2.0, 0.0], 1.0), ([1.0, 0.0], [0.0, 3.0], 0.0), ([1.0], [-1.0], -1.0), ([0.0], [1.0], 0.0)],
)
def test_similarity_is_the_cosine(a: list[float], b: list[float], similarity: float) -> None:
    assert cosine(a, b) == pytest.approx(similarity)


@pytest.mark.parametrize("arguments", [("",), ("--compare", "a", "")])
def test_an_empty_text_is_refused_before_the_server_is_asked(run: Callable[..., Ran], arguments: tuple[str]) -> None:
    ran = run("embed", *arguments)
    assert (ran.code, ran.err) == (4, "error: a text to embed is empty\nhint: mullama embed TEXT, or pipe one in\n")
