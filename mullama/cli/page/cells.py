"""Cells, columns and bars of the tables on the page, as text with a tone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from mullama.units import printable

CellTone = Literal["plain", "dim", "strong", "good", "busy", "warning", "error", "accent"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


class PageCell(NamedTuple):
    """A text without control characters, and how it is shown."""

    text: str
    tone: CellTone = "plain"


class PageColumn(NamedTuple):
    """A column of a table."""

    key: str
    head: str
    least: int
    """Characters below which the column is left out, or for the first one shortened."""
    rank: int
    """The columns with the largest rank are left out first where the page is narrow."""
    right: bool = False
    """Numbers are aligned at their end."""
    wide: bool = False
    """The column takes the room that is left."""


def cell(text: object, tone: CellTone = "plain") -> PageCell:
    """Return a cell whose control and direction characters are escaped, on one line."""
    return PageCell(printable(" ".join(str(text).split())), tone)


def fitted(
    columns: Sequence[PageColumn], rows: Sequence[Sequence[PageCell]], width: int, *, gap: int = 2,
    measure: Callable[[str], int] = len,
) -> tuple[tuple[int, int], ...]:  # fmt: skip
    """Return (index, width) of the columns that fit into `width` characters.

    measure: returns the columns of the terminal that a text takes.
    """
    wanted = [
        max([measure(column.head), *(measure(row[i].text) for row in rows)], default=0)
        for i, column in enumerate(columns)
    ]
    wanted = [min(w, c.least) if c.wide else max(w, 1) for w, c in zip(wanted, columns, strict=True)]
    kept = list(range(len(columns)))
    least = min(wanted[0], columns[0].least)

    def taken() -> int:
        return sum(wanted[i] for i in kept) + gap * (len(kept) - 1)

    # The first column gives way before another column is left out, down to its least width.
    while len(kept) > 1 and taken() - wanted[0] + least > width:
        kept.remove(max(kept[1:], key=lambda i: columns[i].rank))
    wanted[0] = min(wanted[0], max(width - taken() + wanted[0], 1))
    spare = width - taken()
    for i in kept:
        if columns[i].wide and spare > 0:
            wanted[i] += spare
            break
    return tuple((i, wanted[i]) for i in kept)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values as blocks, scaled to their maximum; spaces where there are fewer."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    if most <= 0:
        return ("·" * len(shown)).rjust(width)
    return "".join("·" if v <= 0 else _BLOCKS[min(7, int(v / most * 8))] for v in shown).rjust(width)


def bar(value: float, whole: float, width: int) -> str:
    """Return a bar of `width` characters, filled by value / whole in eighths of a character."""
    eighths = round(min(max(value / whole, 0.0), 1.0) * width * 8) if whole > 0 else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width, "░")
