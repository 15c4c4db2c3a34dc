"""The application of the terminal page: one line about the server, tabs, and the pane that is shown."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Click
from textual.message import Message
from textual.widgets import ContentSwitcher, Footer, Static

from mullama.cli.page.cells import PageCell, cell
from mullama.cli.page.connection import LinkState, LiveLink
from mullama.cli.page.live import taken
from mullama.cli.page.overview import headline
from mullama.cli.page.screens.dialogs import FactsDialog
from mullama.cli.page.screens.filter import Filtered
from mullama.cli.page.screens.jobs import PageCall, hand_over, in_background
from mullama.cli.page.screens.pane import PageBase, Pane
from mullama.cli.page.screens.rows import STYLES, content
from mullama.cli.page.screens.themes import set_theme, turn_theme
from mullama.cli.page.server_access import PageServer
from mullama.errors import MullamaError
from mullama.units import printable

_HELP = " ? help"
_TABS = 9  # panes that a number key shows


class PageApp(PageBase):
    """The page. panes: in the order of their tabs; the first one, or that of `first`, is shown."""

    CSS_PATH = "page.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "mullama"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,f1", "help", "Help", show=False),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        *(Binding(f"{n}", f"pane({n})", show=False) for n in range(1, _TABS + 1)),
        Binding("ctrl+right", "pane_beside(1)", "Next tab", show=False, priority=True),
        Binding("ctrl+left", "pane_beside(-1)", "Tab before", show=False, priority=True),
        Binding("ctrl+t", "theme", "Light or dark", show=False),
    ]

    def __init__(self, server: PageServer, panes: Sequence[Pane], *, first: str = "", plain: bool = False) -> None:
        super().__init__(server, plain=plain)
        self._panes = tuple(panes)
        self._first = first or str(panes[0].id)
        self._link_state: LinkState = "connecting"
        self._link = LiveLink(server.find, self._take_later, self._link_later)
        self._budget_of: object = None
        """The revision of `budget`."""

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        yield TabLine(tuple(pane.title for pane in self._panes))
        yield Static(id="trouble")
        with ContentSwitcher(initial=self._first):
            yield from self._panes
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        set_theme(self)
        self.query_one("#trouble").display = False
        self._link.start()
        self._show(self._first)

    def on_unmount(self) -> None:
        self._link.close()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_head)  # the size is still the one before

    @property
    def shown(self) -> Pane:
        """The pane that is shown."""
        current = self.query_one(ContentSwitcher).current
        return next(pane for pane in self._panes if pane.id == current)

    # The live state

    def _take_later(self, update: Mapping[str, Any]) -> None:
        hand_over(self, partial(self._take, update))

    def _link_later(self, state: LinkState, error: MullamaError | None) -> None:
        hand_over(self, partial(self._link_changed, state, error))

    async def on_page_call(self, message: PageCall) -> None:
        with suppress(NoMatches):  # the page is closing, and the widget of the answer is gone
            result = message.call()
            if inspect.isawaitable(result):
                await result

    def _take(self, update: Mapping[str, Any]) -> None:
        self.view = taken(self.view, update)
        self._read_budget()
        self._draw_head()
        self.shown.changed()

    def _link_changed(self, state: LinkState, error: MullamaError | None) -> None:
        self._link_state = state
        trouble = self.query_one("#trouble", Static)
        trouble.display = error is not None
        if error is not None:
            hint = f" {error.hint}." if error.hint else ""
            text = f"{error.message}.{hint} The page asks again."
            trouble.update(Content(printable(" ".join(text.split()))))
        self._draw_head()

    def _read_budget(self) -> None:
        """Read the budget of a revision that is applied newly."""
        revision = self.view.status.get("revision")
        if revision == self._budget_of:
            return
        self._budget_of = revision

        def took(stack: Mapping[str, Any]) -> None:
            self.budget = ((stack.get("manifest") or {}).get("hardware") or {}).get("budget") or {}
            self.shown.changed()

        # Without the budget, the bars show the size of the devices.
        server = self.server
        in_background(self, lambda: server.find().client.get("/api/v1/stack"), took, lambda _: None)

    def _draw_head(self) -> None:
        parts = headline(self.view.status, self._link_state, self.size.width - 2)
        self.query_one("#headline", Static).update(content(*parts, gap=" · "))

    # Keys and notes

    def action_pane(self, number: int) -> None:
        if number <= len(self._panes):
            self._show(str(self._panes[number - 1].id))

    def action_pane_beside(self, step: int) -> None:
        at = self._panes.index(self.shown)
        self.action_pane((at + step) % len(self._panes) + 1)

    def action_theme(self) -> None:
        turn_theme(self)

    def action_help(self) -> None:
        self.push_screen(FactsDialog("Keys", lambda: help_rows(self._panes)))

    def on_tab_line_chosen(self, message: TabLine.Chosen) -> None:
        self.action_pane(message.number)

    def _show(self, id: str) -> None:
        switcher = self.query_one(ContentSwitcher)
        if switcher.current != id:
            self.shown.left()
            switcher.current = id
        self.query_one(TabLine).select(self._panes.index(self.shown) + 1)
        self.shown.entered()


class TabLine(Static):
    """The names of the panes with their keys, the shown one marked."""

    class Chosen(Message):
        """A click on a tab. number: from 1."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, titles: tuple[str, ...]) -> None:
        super().__init__(id="tabs")
        self._titles, self._selected = titles, 1

    def select(self, number: int) -> None:
        """Mark a tab."""
        self._selected = number
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_click(self, event: Click) -> None:
        end = 0
        for number, word in enumerate(self._words(), 1):
            end += len(word)
            if event.x - 1 < end:
                self.post_message(self.Chosen(number))
                return

    def _words(self) -> list[str]:
        long = [f" {number} {title} " for number, title in enumerate(self._titles, 1)]
        if sum(map(len, long)) + len(_HELP) <= self.size.width:
            return long
        return [w if n == self._selected else f" {n} " for n, w in enumerate(long, 1)]

    def _draw(self) -> None:
        parts = [
            Content.styled(word, "bold reverse" if number == self._selected else STYLES["dim"])
            for number, word in enumerate(self._words(), 1)
        ]
        room = self.size.width - sum(part.cell_length for part in parts)
        parts.append(Content.styled(_HELP.rjust(room), STYLES["dim"]))
        self.update(Content("").join(parts))


def help_rows(panes: Sequence[Pane]) -> list[tuple[str, PageCell]]:
    """Return every key of the page and of its panes, from their bindings."""
    rows = [
        ("1 … " + str(len(panes)), cell("show a pane; also ctrl+left, ctrl+right")),
        ("arrows", cell("move the cursor; also home, end, page up, page down")),
        ("enter", cell("show all of the row under the cursor")),
        ("?", cell("this help")),
        ("ctrl+t", cell("light or dark")),
        ("q", cell("quit; in a field: escape, then q")),
    ]
    for pane in panes:
        rows += [("", cell("")), (pane.title, cell(pane.help, "strong"))]
        kinds = (kind for kind in reversed(type(pane).__mro__) if issubclass(kind, Pane | Filtered))
        for binding in chain.from_iterable(vars(kind).get("BINDINGS", ()) for kind in kinds):
            if isinstance(binding, Binding):
                keys = binding.key_display or binding.key.replace(",", ", ")
                rows.append((keys, cell(binding.description[:1].lower() + binding.description[1:])))
    return rows
