"""The table of a fleet: the models of all hosts, and one row for each host without an answer or a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mullama.cli.page.cells import CellTone, PageCell, PageColumn, cell
from mullama.cli.page.live import LiveView
from mullama.cli.page.model_table import COLUMNS, ModelRow, model_rows, sorted_rows
from mullama.struct import Struct, field
from mullama.units import counted

FLEET_COLUMNS = (PageColumn("host", "HOST", 6, 0), *COLUMNS)
"""The columns of the models, after the one of their host."""

HostState = Literal["connecting", "live", "lost", "away"]
_SIGNS: dict[HostState, tuple[str, CellTone, str]] = {
    "connecting": ("◌ connecting", "busy", "loading"),
    "live": ("○ no model", "dim", "idle"),
    "lost": ("✗ no answer", "error", "failed"),
    "away": ("○ away", "dim", "idle"),
}
"""The text and its tone, and the state of a model that the row is sorted with."""


class HostView(Struct, frozen=True, kw_only=True):
    """One host as the page knows it."""

    name: str
    url: str = ""
    view: LiveView = field(default_factory=LiveView)
    """After its updates so far."""
    state: HostState = "connecting"
    reason: str = ""
    """The error that ended the last connection; "" while it is live."""


class FleetRow(NamedTuple):
    """A row of the table. model: "" for the row of a host."""

    id: str
    host: str
    model: str
    row: ModelRow

    @property
    def cells(self) -> tuple[PageCell, ...]:
        """In the order of `FLEET_COLUMNS`."""
        return (cell(self.host), *self.row.cells)


def fleet_rows(hosts: Sequence[HostView], *, order: str = "manifest", wanted: str = "") -> list[FleetRow]:
    """Return the rows of the hosts that have every word of `wanted`. The models of a lost host are not shown."""
    rows = []
    for host in hosts:
        models = model_rows(host.view) if host.state == "live" else []
        rows += [FleetRow(f"{host.name}/{row.name}", host.name, row.name, row) for row in models]
        if not models:
            rows.append(FleetRow(f"{host.name}/", host.name, "", _host_row(host)))
    words = wanted.casefold().split()
    rows = [row for row in rows if all(word in f"{row.host.casefold()} {row.row.text}" for word in words)]
    return sorted_rows(rows, order, lambda row: row.row)


def fleet_summary(rows: Sequence[FleetRow], hosts: Sequence[HostView], order: str, wanted: str) -> str:
    """Return what the table shows: `3 models on 2 of 3 hosts, by memory, with "qwen"`."""
    live = sum(host.state == "live" for host in hosts)
    shown = f"{counted(sum(bool(row.model) for row in rows), 'model')} on {live} of {counted(len(hosts), 'host')}"
    sort = "" if order == "manifest" else f", by {order}"
    return f"{shown}{sort}" + (f', with "{cell(wanted).text}"' if wanted else "")


def host_facts(host: HostView) -> list[tuple[str, PageCell]]:
    """Return everything about a host without models, for a dialog."""
    text, tone, _ = _SIGNS[host.state]
    return [("address", cell(host.url)), ("state", cell(text, tone)), ("reason", cell(host.reason))]


def _host_row(host: HostView) -> ModelRow:
    text, tone, state = _SIGNS[host.state]
    none = cell("-", "dim")
    cells = (none, cell(text, tone), none, none, none, cell(""), cell(host.reason, tone))
    return ModelRow("", cells, state, 0, (0, 0), 0.0, f"{text} {host.reason}".casefold())
