"""The page of a fleet: the models of all hosts in one live table."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, NamedTuple

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.widgets import Footer, Static

from mullama.cli.page.cells import cell
from mullama.cli.page.connection import LinkServer, LinkState, LiveLink
from mullama.cli.page.details import model_details
from mullama.cli.page.fleet_table import FLEET_COLUMNS, HostView, fleet_rows, fleet_summary, host_facts
from mullama.cli.page.live import taken
from mullama.cli.page.screens.dialogs import FactsDialog
from mullama.cli.page.screens.filter import FilterField, Sorted
from mullama.cli.page.screens.jobs import PageCall, hand_over
from mullama.cli.page.screens.rows import RowTable, content
from mullama.cli.page.screens.themes import set_theme, turn_theme
from mullama.errors import MullamaError
from mullama.struct import replace

_EMPTY = "No row has these words. Escape in the filter shows all."


class FleetPageHost(NamedTuple):
    """A host of the page. server: None for a host that is not asked, with the reason."""

    name: str
    url: str
    server: LinkServer | None
    reason: str = ""
    away: bool = False
    """By the manifest or --skip."""


class FleetPage(Sorted, App[None]):
    """The page. A host that is lost is a row with its reason, and is asked until it answers again."""

    CSS_PATH = "page.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "mullama"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+t", "theme", "Light or dark", show=False),
    ]

    def __init__(
        self, fleet: str, hosts: Sequence[FleetPageHost], *, order: str = "manifest", wanted: str = "",
        plain: bool = False,
    ) -> None:  # fmt: skip
        """fleet: its name. order, wanted: of the table. plain: show no colour (NO_COLOR)."""
        super().__init__(ansi_color=plain)
        self._fleet, self.order, self.wanted = fleet, order, wanted
        self._hosts = {
            host.name: HostView(
                name=host.name, url=host.url, reason=host.reason,
                state="connecting" if host.server is not None else "away" if host.away else "lost",
            )
            for host in hosts
        }  # fmt: skip
        self._links = [self._link(host.name, host.server) for host in hosts if host.server is not None]
        self._table = RowTable(FLEET_COLUMNS, empty=_EMPTY, id="model-table")

    def _link(self, name: str, server: LinkServer) -> LiveLink:
        return LiveLink(
            lambda: server,
            lambda update: hand_over(self, partial(self._take, name, update)),
            lambda state, error: hand_over(self, partial(self._link_changed, name, state, error)),
        )

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        yield FilterField()
        yield self._table
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        set_theme(self)
        self.show_filter()
        self.focus_rows()
        self.redraw()
        for link in self._links:
            link.start()

    def on_unmount(self) -> None:
        for link in self._links:
            link.stop()
        for link in self._links:
            link.close()

    def on_resize(self) -> None:
        self.redraw()

    async def on_page_call(self, message: PageCall) -> None:
        with suppress(NoMatches):  # the page is closing, and the table is gone
            result = message.call()
            if inspect.isawaitable(result):
                await result

    def _take(self, name: str, update: Mapping[str, Any]) -> None:
        host = self._hosts[name]
        self._hosts[name] = replace(host, view=taken(host.view, update))
        self.redraw()

    def _link_changed(self, name: str, state: LinkState, error: MullamaError | None) -> None:
        reason = error.message if error is not None else ""
        self._hosts[name] = replace(self._hosts[name], state=state, reason=reason)
        self.redraw()

    def redraw(self) -> None:
        hosts = [*self._hosts.values()]
        rows = fleet_rows(hosts, order=self.order, wanted=self.wanted)
        lost = any(host.state == "lost" for host in hosts)
        parts = (
            cell(self._fleet, "strong"), cell(fleet_summary(rows, hosts, self.order, self.wanted),
                                              "error" if lost else "plain"),
        )  # fmt: skip
        self.query_one("#headline", Static).update(content(*parts, gap=" · "))
        self._table.show([(row.id, row.cells) for row in rows], empty=_EMPTY)

    # Keys

    def focus_rows(self) -> None:
        self._table.focus_rows()

    def action_theme(self) -> None:
        turn_theme(self)

    def on_row_table_chosen(self, event: RowTable.Chosen) -> None:
        name, _, model = event.row.partition("/")
        if model:
            title = f"{model} on {name}"
            self.push_screen(FactsDialog(title, lambda: model_details(self._hosts[name].view, model, time.time())))
        else:
            self.push_screen(FactsDialog(name, lambda: host_facts(self._hosts[name])))
