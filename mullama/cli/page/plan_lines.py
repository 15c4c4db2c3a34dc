"""A plan, the revisions and a running apply as lines of the page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from mullama.cli.console.progress import PHASES, ApplyProgress, amounts, is_complete, outcome_lines
from mullama.cli.manifest.history import changes_of
from mullama.cli.page.cells import CellTone, PageCell, PageColumn, bar, cell
from mullama.plan import report
from mullama.plan.steps import Cause, Plan

REVISION_COLUMNS = (
    PageColumn("generation", "REVISION", 8, 0, right=True),
    PageColumn("when", "WHEN", 16, 1),
    PageColumn("by", "BY", 6, 3),
    PageColumn("trigger", "TRIGGER", 7, 4),
    PageColumn("changes", "CHANGES", 12, 2, wide=True),
)

_TONES: Mapping[report.Tone, CellTone] = {
    "add": "good", "update": "warning", "replace": "accent", "remove": "error", "repair": "busy", "plain": "plain",
}  # fmt: skip
_STATES: Mapping[str, tuple[str, CellTone]] = {
    "ready": ("●", "good"), "failed": ("✗", "error"), "idle": ("○", "dim"), "degraded": ("◐", "warning"),
}  # fmt: skip
_BAR = 16


def plan_lines(plan: Plan, width: int) -> tuple[PageCell, ...]:
    """Return the plan as the commands print it; on a page that is too narrow, with each change on its own line."""
    lines = report.lines(plan)
    if max((len(line.text) for line in lines), default=0) > width:
        steps = sum(line.tone != "plain" for line in lines)
        lines = (*_stacked(plan, width), *lines[steps:])
    return tuple(PageCell(line.text, _TONES[line.tone]) for line in lines)


def _stacked(plan: Plan, width: int) -> list[report.Line]:
    found: list[report.Line] = []
    for step in plan.steps:
        tone = report.tone(step)
        drift = step.cause is Cause.DRIFT
        sign, cost = ("!", "drift") if drift else (step.action.sign, step.cost.value)
        found.append(report.Line(cell(f"{sign} {step.subject}  {cost}").text, tone))
        for part in filter(None, report.summary(step).split("; ")):
            first, later = "    ", "      "
            parts = wrap(cell(part).text, max(width, 20), initial_indent=first, subsequent_indent=later)
            found += [report.Line(text, tone) for text in parts]
    return found


def question(plan: Plan, *, removes_all: bool) -> str:
    """Return the facts that a person confirms: the counts, what is removed, and the pauses."""
    facts = [report.counts(plan)]
    if removes_all:
        facts.append("The manifest has no models: every model is removed.")
    elif gone := [step.subject for step in plan.steps if step.destructive]:
        facts.append(f"Removed: {', '.join(gone)}.")
    if waits := [step.subject for step in plan.steps if step.pause]:
        facts.append(f"Requests wait for {', '.join(waits)}.")
    return cell(" ".join(facts)).text


def progress_lines(progress: ApplyProgress, speeds: Mapping[tuple[str, str], float]) -> tuple[PageCell, ...]:
    """Return an apply as lines: phase, files with bytes and time left, models, warnings, and the result.

    speeds: bytes per second by model and file.
    """
    lines: list[PageCell] = []
    for key, download in progress.downloads.items():
        if download.phase == "found":
            continue
        done = is_complete(download)
        name = f"{key[0]}: {download.file}" if key[0] else download.file
        numbers = amounts(download, None if done else speeds.get(key))
        if done or not download.total:
            lines.append(cell(f"{'●' if done else '↓'} {name} {numbers}", "good" if done else "busy"))
        else:
            lines.append(cell(f"↓ {name}", "busy"))
            lines.append(PageCell(f"  {bar(download.completed, download.total, _BAR)} {cell(numbers).text}", "busy"))
    for name, state in progress.models.items():
        sign, tone = _STATES.get(state.state, ("◌", "busy"))
        message = f": {state.message}" if state.message else ""
        lines.append(cell(f"{sign} {name} {state.state}{message}", tone))
    lines += [cell(f"warning: {text}", "warning") for text in progress.warnings]
    if progress.result is None:
        return (cell(f"{PHASES.get(progress.phase, 'sending the manifest')} …", "busy"), *lines)
    applied = progress.result.get("outcome") == "applied"
    *failed, last = outcome_lines(progress.result)
    lines += [cell(text, "error") for text in failed]
    return (*lines, cell(f"{'✓' if applied else '✗'} {last}", "good" if applied else "error"))


def revision_rows(
    revisions: Sequence[Mapping[str, Any]], applied: int | None
) -> list[tuple[str, tuple[PageCell, ...]]]:
    """Return (number, cells) of the revisions that an undo can go back to, newest first. applied: the current one."""
    rows: list[tuple[str, tuple[PageCell, ...]]] = []
    for one in revisions:
        if one["generation"] == applied:
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["when"]))
        commit = (one.get("origin") or {}).get("commit")
        by = f"{one.get('by') or '-'} {str(commit)[:8]}" if commit else one.get("by") or "-"
        changes = changes_of(one.get("summary") or {})
        cells = (cell(one["generation"], "strong"), cell(when, "dim"), cell(by), cell(one.get("trigger") or "-"))
        rows.append((str(one["generation"]), (*cells, cell(changes or "-"))))
    return rows
