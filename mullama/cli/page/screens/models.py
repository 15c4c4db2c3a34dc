"""The pane of the models: conditions of the server, memory by device, and one row for each model."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from mullama.cli.page.details import model_details
from mullama.cli.page.model_table import COLUMNS, model_rows, summary
from mullama.cli.page.overview import conditions, device_line, devices
from mullama.cli.page.screens.dialogs import FactsDialog, Question
from mullama.cli.page.screens.filter import FilterField, Sorted
from mullama.cli.page.screens.jobs import in_background
from mullama.cli.page.screens.pane import Pane
from mullama.cli.page.screens.rows import RowTable, content
from mullama.cli.server.ensure import model_path
from mullama.units import counted

_EMPTY = "No model is declared. Add one to the manifest, and run mullama apply."
_LOAD_SECONDS = 3600.0


class ModelsPane(Sorted, Pane):
    """Desired against actual: one row for each model."""

    title = "Models"
    help = "One row for each model: state, memory, requests, speed and the last error."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "load", "Load"),
        Binding("x", "unload", "Unload"),
    ]

    def __init__(self, *, order: str = "manifest", wanted: str = "") -> None:
        super().__init__(id="models")
        self.order, self.wanted = order, wanted
        self._table = RowTable(COLUMNS, empty=_EMPTY, id="model-table")

    def compose(self) -> ComposeResult:
        yield Static(id="conditions")
        yield Static(id="devices")
        yield Static(id="summary", classes="quiet")
        yield FilterField()
        yield self._table

    def on_mount(self) -> None:
        self.show_filter()

    def redraw(self) -> None:
        self.changed()

    def focus_rows(self) -> None:
        self._table.focus_rows()

    def entered(self) -> None:
        self.focus_rows()
        self.changed()

    def on_resize(self) -> None:
        self.changed()

    def changed(self) -> None:
        view, width = self.page.view, max(self.size.width - 2, 10)
        notes = conditions(view.status)
        self.query_one("#conditions", Static).update(Content("\n").join(content(one) for one in notes))
        self.query_one("#conditions").display = bool(notes)
        lines = (device_line(use, width) for use in devices(view.status, self.page.budget))
        self.query_one("#devices", Static).update(Content("\n").join(content(*line) for line in lines))
        rows = model_rows(view, order=self.order, wanted=self.wanted)
        shown = summary(rows, len(view.models), self.order, self.wanted)
        self.query_one("#summary", Static).update(Content(shown if view.status else "Connecting to the server"))
        empty = _EMPTY
        if not view.status:
            empty = "There is no answer yet."
        elif view.models:
            empty = "No model has these words. Escape in the filter shows all."
        self._table.show([(row.name, row.cells) for row in rows], empty=empty)

    def on_row_table_chosen(self, event: RowTable.Chosen) -> None:
        name = event.row

        def done(key: str | None) -> None:
            if key == "l":
                self._load(name)
            elif key == "x":
                self._ask_unload(name)

        keys = (("l", "load"), ("x", "unload"))
        dialog = FactsDialog(name, lambda: model_details(self.page.view, name, time.time()), keys=keys)
        self.page.push_screen(dialog, done)

    def action_load(self) -> None:
        if self._table.chosen is not None:
            self._load(self._table.chosen)

    def action_unload(self) -> None:
        if self._table.chosen is not None:
            self._ask_unload(self._table.chosen)

    def _load(self, name: str) -> None:
        self.page.say(f"{name}: loading")
        server = self.page.server
        in_background(
            self.page,
            lambda: server.find().client.post("/api/models/load", {"name": name}, within=_LOAD_SECONDS),
            lambda _: self.page.say(f"{name} is loaded"),
            self.failed,
        )

    def _ask_unload(self, name: str) -> None:
        model = next((one for one in self.page.view.models if one["name"] == name), {})
        running = int(model.get("active") or 0)
        details = "The next request loads it again."
        if running:
            details = f"{counted(running, 'request')} of it end first. {details}"
        self.page.push_screen(
            Question(f"Unload {name}?", yes="Unload", details=details), lambda yes: self._unload(name) if yes else None
        )

    def _unload(self, name: str) -> None:
        server = self.page.server
        in_background(
            self.page,
            lambda: server.find().client.post(model_path(name, "unload"), {"force": False}),
            lambda _: self.page.say(f"{name}: unloaded when its requests have ended"),
            self.failed,
        )
