"""Columns, bars and sparklines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.cli.page.cells import PageColumn, bar, cell, fitted, sparkline

COLUMNS = (
    PageColumn("name", "NAME", 6, 0),
    PageColumn("state", "STATE", 5, 1),
    PageColumn("memory", "MEMORY", 6, 2, right=True),
    PageColumn("reason", "REASON", 10, 3, wide=True),
)


def row(*texts: str) -> tuple:
    return tuple(cell(text) for text in texts)


def test_the_wide_column_takes_the_room_that_is_left() -> None:
    rows = [row("chat", "ready", "4 GiB", "a reason that is long")]
    assert fitted(COLUMNS, rows, 80) == ((0, 4), (1, 5), (2, 6), (3, 59))


@pytest.mark.parametrize(
    ("width", "kept"), [(80, [0, 1, 2, 3]), (25, [0, 1, 2]), (16, [0, 1]), (8, [0])]
)  # fmt: skip
def test_columns_are_left_out_by_their_rank(width: int, kept: list[int]) -> None:
    assert [i for i, _ in fitted(COLUMNS, [row("chat", "ready", "4 GiB", "x")], width)] == kept


def test_the_first_column_gives_way_before_another_is_left_out() -> None:
    rows = [row("a-model-with-a-long-name", "ready", "4 GiB", "")]
    assert fitted(COLUMNS, rows, 24) == ((0, 9), (1, 5), (2, 6))


@given(
    st.lists(st.tuples(*(st.text("abc", max_size=30) for _ in COLUMNS)), max_size=4),
    st.integers(min_value=6, max_value=200),
)
def test_a_line_is_never_wider_than_the_terminal(texts: list[tuple[str, ...]], width: int) -> None:
    shown = fitted(COLUMNS, [row(*line) for line in texts], width)
    assert sum(w for _, w in shown) + 2 * (len(shown) - 1) <= width
    assert shown[0][0] == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "    "),
        ([0, 0], "  ··"),
        ([1, 2, 4, 8], "▂▃▅█"),
        ([9, 1, 2, 4, 8], "▂▃▅█"),
        ([0.0, 8.0], "  ·█"),
    ],
)
def test_a_sparkline_is_scaled_to_its_maximum(values: list[float], text: str) -> None:
    assert sparkline(values, 4) == text


@pytest.mark.parametrize(
    ("value", "whole", "text"),
    [(0, 8, "░░░░"), (8, 8, "████"), (20, 8, "████"), (4, 8, "██░░"), (1, 8, "▌░░░"), (3, 0, "░░░░")],
)
def test_a_bar_is_filled_in_eighths(value: float, whole: float, text: str) -> None:
    assert bar(value, whole, 4) == text


def test_a_cell_is_one_line_without_control_and_direction_characters() -> None:
    assert cell("a\x1b[31mb\nc \u202ed").text == "a\\x1b[31mb c \\u202ed"
