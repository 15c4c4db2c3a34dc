"""The pane of the plan: the manifest against the server, apply with its progress, and undo with its plan first."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from mullama.cli.console.progress import ApplyProgress, fold
from mullama.cli.page.cells import cell
from mullama.cli.page.plan_lines import REVISION_COLUMNS, plan_lines, progress_lines, question, revision_rows
from mullama.cli.page.plans import ShownPlan, manifest_plan, mistakes, revisions, undo_plan
from mullama.cli.page.screens.dialogs import Question, RowChoice
from mullama.cli.page.screens.jobs import in_background, streamed
from mullama.cli.page.screens.pane import Pane
from mullama.cli.page.screens.rows import content
from mullama.client.errors import error_from_tree
from mullama.errors import MullamaError, Unavailable

_Key = tuple[str, str]


class PlanPane(Pane):
    """Desired against actual as steps, before anything is changed."""

    title = "Plan"
    help = "The manifest against the server. Nothing is changed before its plan is shown and confirmed."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "apply", "Apply"),
        Binding("u", "undo", "Undo"),
        Binding("p", "plan", "Plan again"),
        Binding("escape", "plan", "Back to the manifest", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="plan")
        self._shown: ShownPlan | None = None
        self._turn = 0
        """The number of the newest question, so that an answer to an earlier one is dropped."""
        self._revision: object = None
        """The applied revision that the plan is of."""
        self._progress: ApplyProgress | None = None
        self._failure: MullamaError | None = None
        """The error that ended the last apply. It stays until the next question."""
        self._applying = False
        self._transfers: dict[_Key, tuple[float, int]] = {}
        """Time and bytes at the first event of each file."""
        self._speeds: dict[_Key, float] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="plan-title", classes="quiet")
        with VerticalScroll(id="plan-body"):
            yield Static(id="plan-progress")
            yield Static(id="plan-text")

    def entered(self) -> None:
        self.query_one("#plan-body").focus()
        if not self._applying and (self._shown is None or self._revision != self.page.view.status.get("revision")):
            self.action_plan()

    def changed(self) -> None:
        """Plan again when another revision was applied, by this page or another."""
        revision = self.page.view.status.get("revision")
        if not self._applying and self._revision is not None and revision != self._revision:
            self._ask(lambda: manifest_plan(self.page.server))

    def on_resize(self) -> None:
        self._draw()

    # The plan

    def action_plan(self) -> None:
        if not self._applying:
            self._progress = self._failure = None
            self._ask(lambda: manifest_plan(self.page.server))

    def _ask(self, work: Any) -> None:
        self._turn += 1
        self._revision = self.page.view.status.get("revision")
        self.query_one("#plan-title", Static).update(Content("planning …"))
        in_background(self.page, work, partial(self._took, self._turn), partial(self._refused, self._turn))

    def _took(self, turn: int, plan: ShownPlan) -> None:
        if turn == self._turn:
            self._shown = plan
            self._draw()

    def _refused(self, turn: int, error: MullamaError) -> None:
        if turn != self._turn:
            return
        self._shown = None
        found = mistakes(error)
        title = f"{len(found)} mistakes in the manifest" if found else "there is no plan"
        self.query_one("#plan-title", Static).update(content(cell(title, "error")))
        lines = [cell(text, "error") for text in found or error.message.splitlines()]
        if error.hint:
            lines.append(cell(f"hint: {error.hint}", "dim"))
        self._write("#plan-text", lines)

    def _draw(self) -> None:
        lines = list(progress_lines(self._progress, self._speeds)) if self._progress is not None else []
        if self._failure is not None:
            lines.append(cell(f"✗ not applied: {self._failure}", "error"))
        self._write("#plan-progress", lines)
        self.query_one("#plan-progress").display = bool(lines)
        if self._shown is None:
            return
        end = ", in progress" if self._applying else ""
        self.query_one("#plan-title", Static).update(content(cell(f"{self._shown.title}{end}")))
        warnings = [cell(f"warning: {text}", "warning") for text in self._shown.warnings]
        self._write("#plan-text", [*plan_lines(self._shown.plan, self.size.width - 4), *warnings])

    def _write(self, selector: str, lines: Any) -> None:
        self.query_one(selector, Static).update(Content("\n").join(content(line) for line in lines))

    # Apply and undo

    def action_apply(self) -> None:
        shown = self._shown
        if self._applying:
            return
        if shown is None:
            self.page.say("There is no plan to apply.")
        elif shown.plan.empty:
            self.page.say("Nothing to do: the server is as the manifest declares.")
        else:
            facts = question(shown.plan, removes_all=shown.removes_all)
            ask = Question(f"Apply {shown.title}?", yes="Apply", details=facts)
            self.page.push_screen(ask, lambda yes: self._apply(shown) if yes else None)

    def action_undo(self) -> None:
        if not self._applying:
            in_background(self.page, lambda: revisions(self.page.server), self._choose, self.failed)

    def _choose(self, found: list[Mapping[str, Any]]) -> None:
        rows = revision_rows(found, self.page.view.status.get("generation"))
        title = "Undo: plan to go back to a revision"
        choice = RowChoice(title, REVISION_COLUMNS, rows, empty="There is no earlier revision.")
        self.page.push_screen(choice, self._plan_undo)

    def _plan_undo(self, number: str | None) -> None:
        if number is not None:
            self._progress = self._failure = None
            self._ask(lambda: undo_plan(self.page.server, int(number)))

    def _apply(self, shown: ShownPlan) -> None:
        self._applying, self._progress, self._failure = True, ApplyProgress(), None
        self._transfers, self._speeds = {}, {}
        self._draw()
        streamed(self.page, shown.apply, self._event, self._ended)

    def _event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "error":
            self._ended(error_from_tree(event["error"]))
            return
        if self._progress is not None:
            self._progress = fold(self._progress, event)
            self._measure(self._progress)
            self._draw()

    def _measure(self, progress: ApplyProgress) -> None:
        now = time.monotonic()
        for key, download in progress.downloads.items():
            since, first = self._transfers.setdefault(key, (now, download.completed))
            if now - since > 1.0:
                self._speeds[key] = (download.completed - first) / (now - since)

    def _ended(self, error: MullamaError | None) -> None:
        if not self._applying:
            return
        self._applying = False
        if error is not None or self._progress is None or self._progress.result is None:
            self._failure = error or Unavailable(
                "the server closed the connection before the result", hint="it may continue the apply: see the events"
            )
            self._progress = None if self._progress == ApplyProgress() else self._progress
        self._draw()
        self._ask(lambda: manifest_plan(self.page.server))
