"""The tables of events and of usage: columns and cells. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.cli.page.cells import CellTone, PageCell, PageColumn, cell
from mullama.cli.page.live import models_of, severity
from mullama.units import duration

EVENT_COLUMNS = (
    PageColumn("kind", "EVENT", 12, 0),
    PageColumn("when", "TIME", 8, 2),
    PageColumn("subject", "SUBJECT", 8, 3),
    PageColumn("message", "MESSAGE", 20, 1, wide=True),
)
USAGE_SPANS: Mapping[str, int] = {"1 h": 3600, "24 h": 86_400, "7 d": 7 * 86_400, "30 d": 30 * 86_400}
"""The times that the usage looks back, in seconds."""
USAGE_SUBJECTS = ("model", "key", "route")

_SUMS = (
    ("requests", "REQUESTS", 1), ("errors", "ERRORS", 4), ("prompt_tokens", "PROMPT", 3),
    ("cached_tokens", "CACHED", 5), ("generated_tokens", "GENERATED", 2), ("seconds", "TIME", 6),
)  # fmt: skip
"""Key, head and rank of the columns of usage."""
_SIGNS: Mapping[str, tuple[str, CellTone]] = {
    "error": ("✗", "error"),
    "warning": ("!", "warning"),
    "plain": (" ", "plain"),
}


def event_rows(events: Sequence[Mapping[str, Any]], wanted: str = "") -> list[tuple[str, tuple[PageCell, ...]]]:
    """Return (id, cells) of the events that have every word of `wanted`, newest first."""
    words = wanted.casefold().split()
    found: list[tuple[str, tuple[PageCell, ...]]] = []
    for event in reversed(events):
        named = " ".join(models_of(event))
        text = f"{event.get('kind')} {event.get('subject') or ''} {named} {event.get('message') or ''}".casefold()
        if all(word in text for word in words):
            found.append((str(event["id"]), _event_cells(event)))
    return found


def _event_cells(event: Mapping[str, Any]) -> tuple[PageCell, ...]:
    sign, tone = _SIGNS[severity(event)]
    kind = str(event.get("kind"))
    # The subject of a worker is a digest, which names no model.
    subject = ", ".join(models_of(event)) if kind.startswith("worker") else event.get("subject") or ""
    return (
        cell(f"{sign} {kind}", tone),
        cell(time.strftime("%H:%M:%S", time.localtime(event["when"])), "dim"),
        cell(subject, "strong"),
        cell(event.get("message") or ""),
    )


def event_details(event: Mapping[str, Any]) -> tuple[tuple[str, PageCell], ...]:
    """Return every field of an event as rows of a name and a text."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["when"]))
    first = {"when": when, **{name: event.get(name) for name in ("kind", "subject", "message")}}
    rest = {name: value for name, value in event.items() if name not in (*first, "id")}
    return tuple((name, cell(_plain(value))) for name, value in {**first, **rest}.items() if value)


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def usage_columns(subject: str) -> tuple[PageColumn, ...]:
    """Return the columns of the usage by a subject of `USAGE_SUBJECTS`."""
    return (
        PageColumn(subject, subject.upper(), 10, 0),
        *(PageColumn(key, head, len(head), rank, right=True) for key, head, rank in _SUMS),
    )


def usage_rows(subject: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[PageCell, ...]]]:
    """Return (subject, cells) of the sums of `/api/v1/usage`, most generated tokens first."""
    keys = [column.key for column in usage_columns(subject)[1:]]
    ordered = sorted(rows, key=lambda row: (-int(row.get("generated_tokens") or 0), str(row.get(subject) or "")))
    return [
        (str(row.get(subject) or ""), (cell(row.get(subject) or "(none)", "strong"), *(_sum(row, key) for key in keys)))
        for row in ordered
    ]


def _sum(row: Mapping[str, Any], key: str) -> PageCell:
    value = row.get(key) or 0
    if key == "seconds":
        return cell(duration(float(value)))
    tone: CellTone = "dim" if not value else "error" if key == "errors" else "plain"
    return cell(f"{int(value):,}", tone)
