"""Text of cells, and the table whose columns fit the width of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from mullama.cli.page.cells import CellTone, PageCell, PageColumn, fitted

STYLES: Mapping[CellTone, str] = {
    "plain": "",
    "dim": "$foreground-muted",
    "strong": "bold",
    "good": "$text-success",
    "busy": "$text-accent",
    "warning": "$text-warning",
    "error": "$text-error",
    "accent": "$accent",
}
_GAP = 2

TableRows = Sequence[tuple[str, Sequence[PageCell]]]
"""(id, cells) of each row. No id occurs twice."""


def content(*cells: PageCell, gap: str = "") -> Content:
    """Return cells as text with the styles of their tones. Nothing in them is read as markup."""
    parts = [Content.styled(one.text, STYLES[one.tone]) for one in cells]
    return Content(gap).join(parts)


def cell_width(text: str) -> int:
    """Return the columns of the terminal that a text takes."""
    return len(text) if text.isascii() else Content(text).cell_length


def padded(one: PageCell, width: int, *, right: bool) -> Content:
    """Return a cell that takes exactly `width` columns."""
    text = Content.styled(one.text, STYLES[one.tone]).truncate(width, ellipsis=True)
    spaces = width - text.cell_length
    return text.pad_left(spaces) if right else text.pad_right(spaces)


class RowTable(Vertical):
    """A table with a cursor. The columns that do not fit are left out by their rank."""

    class Chosen(Message):
        """Enter on a row, or a click."""

        def __init__(self, table: RowTable, row: str) -> None:
            super().__init__()
            self.table, self.row = table, row

        @property
        def control(self) -> RowTable:
            return self.table

    def __init__(self, columns: Sequence[PageColumn], *, empty: str, id: str) -> None:
        """empty: text for a table without rows."""
        super().__init__(id=id, classes="table")
        self._columns, self._empty = tuple(columns), empty
        self._rows: TableRows = ()
        self._names: tuple[str, ...] = ()
        self._lines: list[Content] = []

    def compose(self) -> ComposeResult:
        yield Static(classes="heads")
        yield OptionList(markup=False)
        yield Static(self._empty, classes="empty", markup=False)

    @property
    def chosen(self) -> str | None:
        """The id of the row under the cursor."""
        at = self._list.highlighted
        return self._names[at] if at is not None and at < len(self._names) else None

    @property
    def lines(self) -> list[str]:
        """The text of the rows as they are shown."""
        return [line.plain for line in self._lines]

    def show(self, rows: TableRows, *, columns: Sequence[PageColumn] | None = None, empty: str = "") -> None:
        """Replace the rows. The cursor stays on its row."""
        self._columns = tuple(columns) if columns is not None else self._columns
        self._empty = empty or self._empty
        self._rows = rows
        self._draw()

    def on_resize(self, _: Resize) -> None:
        self._draw()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_index < len(self._names):
            self.post_message(self.Chosen(self, self._names[event.option_index]))

    def focus_rows(self) -> None:
        """Give the keys to the rows."""
        self._list.focus()

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def _draw(self) -> None:
        width = self.size.width - 2  # a column before the rows, and the one of the scroll bar
        if width <= 0 or not self.is_mounted:
            return
        shown = fitted(self._columns, [cells for _, cells in self._rows], width, gap=_GAP, measure=cell_width)
        self.query_one(".heads", Static).update(self._line([PageCell(c.head, "dim") for c in self._columns], shown))
        lines = [self._line(cells, shown) for _, cells in self._rows]
        names = tuple(name for name, _ in self._rows)
        self._replace(names, lines)
        self.set_class(not names, "is-empty")
        self.query_one(".empty", Static).update(Content(self._empty))

    def _line(self, cells: Sequence[PageCell], shown: Sequence[tuple[int, int]]) -> Content:
        parts = [padded(cells[i], width, right=self._columns[i].right) for i, width in shown]
        return Content(" ") + Content(" " * _GAP).join(parts)

    def _replace(self, names: tuple[str, ...], lines: list[Content]) -> None:
        """Change the rows that differ, or all of them where others were added, removed or moved."""
        rows = self._list
        if names == self._names:
            for i, (before, line) in enumerate(zip(self._lines, lines, strict=True)):
                if not before.is_same(line):
                    rows.replace_option_prompt_at_index(i, line)
        else:
            chosen, offset = self.chosen, rows.scroll_offset
            rows.set_options([Option(line) for line in lines])
            at = names.index(chosen) if chosen in names else min(rows.highlighted or 0, len(names) - 1)
            rows.highlighted = at if names else None
            if chosen not in names or offset.y == 0:
                rows.scroll_to(y=offset.y, animate=False)
        self._names, self._lines = names, lines
