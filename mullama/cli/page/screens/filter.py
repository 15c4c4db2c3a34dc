"""The filter of a list of rows, and the order of a table: the field, its keys, and what they change."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.message import Message
from textual.widgets import Input

from mullama.cli.page.model_table import SORTS


class FilterField(Input):
    """A field that is shown by `/`, filters while it is written, and is hidden by Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Clear the filter")]

    class Closed(Message):
        """The field is left by Escape or Enter."""

    def __init__(self) -> None:
        super().__init__(placeholder="filter: words of a row", classes="filter", select_on_focus=False)
        self.display = False

    def open(self) -> None:
        """Show the field, and type into it."""
        self.display = True
        self.screen.set_focus(self)  # at once: `focus` waits for the next turn, and loses the key that follows

    def action_close(self) -> None:
        self.value = ""
        self.display = False
        self.post_message(self.Closed())

    async def action_submit(self) -> None:
        self.display = bool(self.value)
        self.post_message(self.Closed())


class Filtered(DOMNode):
    """A pane or a page with a `FilterField` over its rows."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("slash", "filter", "Filter", key_display="/")]
    wanted = ""
    """The words of the filter."""

    def redraw(self) -> None:
        """Show the rows that have the words."""
        raise NotImplementedError

    def focus_rows(self) -> None:
        """Give the keys to the rows."""
        raise NotImplementedError

    def on_input_changed(self, event: Input.Changed) -> None:
        self.wanted = event.value
        self.redraw()

    def on_filter_field_closed(self) -> None:
        self.focus_rows()

    def action_filter(self) -> None:
        self.query_one(FilterField).open()


class Sorted(Filtered):
    """A pane or a page with a table of models, which may begin with a filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort backwards", show=False),
    ]
    order = SORTS[0]

    def show_filter(self) -> None:
        """Show the field with the words that the page began with."""
        if self.wanted:
            field = self.query_one(FilterField)
            field.value, field.display = self.wanted, True

    def action_sort(self, step: int) -> None:
        self.order = SORTS[(SORTS.index(self.order) + step) % len(SORTS)]
        self.redraw()
