"""The panes of events, of the log and of the usage."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Log, Static

from mullama.cli.page.cells import cell
from mullama.cli.page.event_table import (
    EVENT_COLUMNS,
    USAGE_SPANS,
    USAGE_SUBJECTS,
    event_details,
    event_rows,
    usage_columns,
    usage_rows,
)
from mullama.cli.page.log_lines import KEPT_LINES, log_lines
from mullama.cli.page.screens.dialogs import FactsDialog
from mullama.cli.page.screens.filter import Filtered, FilterField
from mullama.cli.page.screens.jobs import in_background, streamed
from mullama.cli.page.screens.pane import Pane
from mullama.cli.page.screens.rows import RowTable, content
from mullama.client.http import StreamStop
from mullama.errors import MullamaError
from mullama.units import counted

_AGAIN_SECONDS = 3.0
_USAGE_SECONDS = 10.0


class EventsPane(Filtered, Pane):
    """The events of the server, newest first."""

    title = "Events"
    help = "The events of the server, newest first. Enter shows all fields of one."

    def __init__(self) -> None:
        super().__init__(id="events")
        self._table = RowTable(EVENT_COLUMNS, empty="No event yet.", id="event-table")

    def compose(self) -> ComposeResult:
        yield Static(classes="quiet", id="event-summary")
        yield FilterField()
        yield self._table

    def entered(self) -> None:
        self.focus_rows()
        self.changed()

    def focus_rows(self) -> None:
        self._table.focus_rows()

    def redraw(self) -> None:
        self.changed()

    def changed(self) -> None:
        events = self.page.view.events
        rows = event_rows(events, self.wanted)
        count = counted(len(events), "event")
        shown = f"{len(rows)} of {count} have these words" if self.wanted else f"{count}, newest first"
        self.query_one("#event-summary", Static).update(Content(shown))
        self._table.show(rows)

    def on_row_table_chosen(self, chosen: RowTable.Chosen) -> None:
        event = next((one for one in self.page.view.events if str(one["id"]) == chosen.row), None)
        if event is not None:
            self.page.push_screen(FactsDialog(f"Event {event['id']}", lambda: event_details(event)))


class LogsPane(Filtered, Pane):
    """The log of the server, followed."""

    title = "Logs"
    help = "The log of the server. It follows new lines while the end is shown."
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f", "follow", "Follow")]

    def __init__(self) -> None:
        super().__init__(id="logs")
        self._lines: list[str] = []
        self._stop: StreamStop | None = None
        """Set while the log is followed."""
        self._begins = False
        """The next lines are all that the server keeps."""

    def compose(self) -> ComposeResult:
        yield Static(classes="quiet", id="log-summary")
        yield FilterField()
        yield Log(max_lines=KEPT_LINES, id="log-lines")

    def entered(self) -> None:
        self.focus_rows()
        self._follow()

    def on_unmount(self) -> None:
        if self._stop is not None:
            self._stop.stop()

    def _follow(self) -> None:
        if self._stop is None:
            stop = self._stop = StreamStop()
            self._begins = True
            streamed(self.page, lambda: log_lines(self.page.server, stop), self._took, self._ended)

    def action_follow(self) -> None:
        log = self.query_one(Log)
        log.auto_scroll = not log.auto_scroll
        if log.auto_scroll:
            log.scroll_end(animate=False)
        self._describe()

    def redraw(self) -> None:
        log = self.query_one(Log)
        log.clear()
        log.write_lines([line for line in self._lines if self._is_wanted(line)])
        self._describe()

    def focus_rows(self) -> None:
        self.query_one(Log).focus()

    def _took(self, lines: tuple[str, ...]) -> None:
        log = self.query_one(Log)
        if self._begins:
            log.clear()
            self._lines, self._begins = [], False
        self._lines = [*self._lines, *lines][-KEPT_LINES:]
        if shown := [line for line in lines if self._is_wanted(line)]:
            log.write_lines(shown)
        self._describe()

    def _ended(self, error: MullamaError | None) -> None:
        """Show why the log is not followed, and try again while the pane is shown."""
        self._stop = None
        text = str(error) if error is not None else "the server ended the log"
        self.query_one("#log-summary", Static).update(content(cell(text, "warning")))
        self.set_timer(_AGAIN_SECONDS, lambda: self._follow() if self.display else None)

    def _describe(self) -> None:
        log = self.query_one(Log)
        state = "followed" if log.auto_scroll else "not followed"
        found = f"{sum(map(self._is_wanted, self._lines)):,} of " if self.wanted else ""
        self.query_one("#log-summary", Static).update(Content(f"{found}{counted(len(self._lines), 'line')}, {state}"))

    def _is_wanted(self, line: str) -> bool:
        text = line.casefold()
        return all(word in text for word in self.wanted.casefold().split())


class UsagePane(Pane):
    """Requests and tokens by model, key or route."""

    title = "Usage"
    help = "Requests and tokens by model, key or route over a time."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "subject", "By model, key or route"),
        Binding("t", "span", "Time"),
        Binding("r", "read", "Read again"),
    ]

    def __init__(self) -> None:
        super().__init__(id="usage")
        self._subject, self._span = USAGE_SUBJECTS[0], "7 d"
        self._table = RowTable(usage_columns(self._subject), empty="", id="usage-table")
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Static(classes="quiet", id="usage-summary")
        yield self._table

    def entered(self) -> None:
        self._table.focus_rows()
        self.action_read()
        if self._timer is None:
            self._timer = self.set_interval(_USAGE_SECONDS, self.action_read)
        self._timer.resume()

    def left(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def action_subject(self) -> None:
        self._subject = USAGE_SUBJECTS[(USAGE_SUBJECTS.index(self._subject) + 1) % len(USAGE_SUBJECTS)]
        self.action_read()

    def action_span(self) -> None:
        spans = list(USAGE_SPANS)
        self._span = spans[(spans.index(self._span) + 1) % len(spans)]
        self.action_read()

    def action_read(self) -> None:
        """Ask the server for the sums."""
        server, subject, span = self.page.server, self._subject, self._span
        query = urlencode({"since": f"{USAGE_SPANS[span]}s", "by": subject})
        in_background(
            self.page,
            lambda: server.find().client.get(f"/api/v1/usage?{query}"),
            lambda tree: self._took(subject, span, tree),
            self._refused,
        )

    def _took(self, subject: str, span: str, tree: dict[str, Any]) -> None:
        if (subject, span) != (self._subject, self._span):
            return  # the answer to an earlier question
        rows = usage_rows(subject, tree["rows"])
        self.query_one("#usage-summary", Static).update(Content(f"by {subject}, the last {span} (b, t change them)"))
        self._table.show(rows, columns=usage_columns(subject), empty=f"No request in the last {span}.")

    def _refused(self, error: MullamaError) -> None:
        self.query_one("#usage-summary", Static).update(content(cell(str(error), "error")))
