"""Dialogs over the page: a question, rows of facts, a choice of a row, and the help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from mullama.cli.page.cells import PageCell, PageColumn
from mullama.cli.page.screens.rows import RowTable, TableRows, content

Facts = Sequence[tuple[str, PageCell]]
"""Rows of a name and a text."""
_NAME = 11  # characters of the names


class Question(ModalScreen[bool]):
    """A question with yes and no. Enter answers what has the focus, which is no at first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left,right", "other", show=False),
    ]

    def __init__(self, text: str, *, yes: str, details: str = "") -> None:
        """yes: the word of the button that agrees."""
        super().__init__()
        self._text, self._yes, self._details = text, yes, details

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._text, classes="question", markup=False)
            if self._details:
                yield Static(self._details, classes="quiet", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(Content("No (n)"), id="no")
                yield Button(Content(f"{self._yes} (y)"), id="yes", variant="primary")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, agreed: bool) -> None:
        self.dismiss(agreed)

    def action_other(self) -> None:
        self.focus_next()


class FactsDialog(ModalScreen[str | None]):
    """Rows of facts, which are computed again while they are shown. A key of `keys` closes it with that key."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "close", "Close")]

    def __init__(self, title: str, facts: Callable[[], Facts], *, keys: Sequence[tuple[str, str]] = ()) -> None:
        """keys: (key, word) of the actions on the thing."""
        super().__init__()
        self._title, self._facts, self._keys = title, facts, dict(keys)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog large"):
            yield Static(self._title, classes="question", markup=False)
            with VerticalScroll(classes="facts"):
                yield Static(id="facts")
            words = [f"{key} {word}" for key, word in self._keys.items()]
            yield Static(" · ".join([*words, "esc close"]), classes="quiet", markup=False)

    def on_mount(self) -> None:
        self.changed()
        self.set_interval(1.0, self.changed)
        self.query_one(VerticalScroll).focus()

    def changed(self) -> None:
        """Show the facts as they are now."""
        lines = []
        for name, fact in self._facts():
            lines.append(content(PageCell(f"{name:<{_NAME}} ", "dim"), fact))
        self.query_one("#facts", Static).update(Content("\n").join(lines))

    def on_key(self, event: object) -> None:
        key = getattr(event, "key", "")
        if key in self._keys:
            self.dismiss(key)

    def action_close(self) -> None:
        self.dismiss(None)


class RowChoice(ModalScreen[str | None]):
    """A table of which one row is chosen; its id is the result."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "close", "Close")]

    def __init__(self, title: str, columns: Sequence[PageColumn], rows: TableRows, *, empty: str) -> None:
        super().__init__()
        self._title, self._rows = title, rows
        self._table = RowTable(columns, empty=empty, id="choice")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog large"):
            yield Static(self._title, classes="question", markup=False)
            yield self._table
            yield Static("enter choose · esc close", classes="quiet", markup=False)

    def on_mount(self) -> None:
        self._table.show(self._rows)
        self._table.focus_rows()

    def on_row_table_chosen(self, event: RowTable.Chosen) -> None:
        self.dismiss(event.row)

    def action_close(self) -> None:
        self.dismiss(None)
