"""The table of models: cells, order and filter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from mullama.cli.page.cells import CellTone, PageCell, PageColumn, cell, sparkline
from mullama.cli.page.live import LiveView
from mullama.units import size

T = TypeVar("T")

TREND = 10  # characters of the sparkline

COLUMNS = (
    PageColumn("name", "MODEL", 12, 0),
    PageColumn("state", "STATE", 9, 1),
    PageColumn("memory", "MEMORY", 8, 2, right=True),
    PageColumn("requests", "REQUESTS", 8, 3, right=True),
    PageColumn("speed", "TOK/S", 5, 4, right=True),
    PageColumn("trend", "TREND", TREND, 6),
    PageColumn("reason", "LAST ERROR", 14, 5, wide=True),
)
"""In the order of the page. REQUESTS has the running ones, and the waiting ones after a plus sign."""

SORTS = ("manifest", "name", "state", "memory", "requests", "speed")
"""Orders of the table. `manifest` is that of the server; numbers are sorted from the largest."""

_MARKS: Mapping[str, tuple[str, CellTone]] = {
    "ready": ("●", "good"),
    "loading": ("◌", "busy"),
    "idle": ("○", "dim"),
    "degraded": ("◐", "warning"),
    "failed": ("✗", "error"),
}
_WORST = ("failed", "degraded", "loading", "ready", "idle")


class ModelRow(NamedTuple):
    """One model: its name, its cells in the order of `COLUMNS`, and the values that it is sorted by."""

    name: str
    cells: tuple[PageCell, ...]
    state: str
    memory: int
    requests: tuple[int, int]
    speed: float
    text: str
    """Text that a filter is compared with, in lower case."""


def model_rows(view: LiveView, *, order: str = "manifest", wanted: str = "") -> list[ModelRow]:
    """Return the rows of the models whose name, state, source or error has every word of `wanted`."""
    rows = [_row(view, model) for model in view.models]
    words = wanted.casefold().split()
    rows = [row for row in rows if all(word in row.text for word in words)]
    return sorted_rows(rows, order, lambda row: row)


def sorted_rows(rows: list[T], order: str, row_of: Callable[[T], ModelRow]) -> list[T]:
    """Return rows in one of `SORTS`. row_of: returns the row of a model in an entry."""
    key = _KEYS.get(order)
    return rows if key is None else sorted(rows, key=lambda entry: key(row_of(entry)))


_KEYS: Mapping[str, Callable[[ModelRow], Any]] = {
    "name": lambda row: row.name.casefold(),
    "state": lambda row: (_WORST.index(row.state) if row.state in _WORST else 0, row.name.casefold()),
    "memory": lambda row: (-row.memory, row.name.casefold()),
    "requests": lambda row: (-sum(row.requests), row.name.casefold()),
    "speed": lambda row: (-row.speed, row.name.casefold()),
}


def state_cell(model: Mapping[str, Any]) -> PageCell:
    """Return the state as a sign and a word, with the share that is loaded."""
    state = str(model.get("state") or "")
    sign, tone = _MARKS.get(state, ("?", "warning"))
    progress = model.get("progress")
    share = f" {progress:.0%}" if isinstance(progress, (int, float)) else ""
    return cell(f"{sign} {state}{share}", tone)


def reason(view: LiveView, model: Mapping[str, Any]) -> tuple[str, CellTone]:
    """Return the reason why a model does not serve what is declared; else its last error, which is over."""
    for condition in model.get("conditions") or ():
        failed = condition["type"] == "Ready" and not condition["status"]
        if failed or (condition["type"] != "Ready" and condition["status"]):
            text = ": ".join(str(part) for part in (condition.get("reason"), condition.get("message")) if part)
            if model.get("state") == "loading":
                return text, "plain"
            return text, "error" if model.get("state") == "failed" else "warning"
    for warning in model.get("warnings") or ():
        return str(warning), "warning"
    event = view.last_error(str(model["name"]))
    return (str(event.get("message") or event.get("kind")), "dim") if event is not None else ("", "plain")


def _row(view: LiveView, model: Mapping[str, Any]) -> ModelRow:
    name = str(model["name"])
    speeds = view.speeds(name)
    speed = speeds[-1] if speeds else 0.0
    active, waiting = int(model.get("active") or 0), int(model.get("waiting") or 0)
    text, tone = reason(view, model)
    cells = (
        cell(f"{name} *" if model.get("is_default") else name, "strong"),
        state_cell(model),
        memory_cell(model),
        cell(f"{active}+{waiting}" if waiting else active, "warning" if waiting else "plain" if active else "dim"),
        cell(_speed(speed), "plain" if speed else "dim"),
        PageCell(sparkline(speeds, TREND), "accent" if any(speeds) else "dim"),
        cell(text, tone),
    )
    found = f"{name} {model.get('state')} {model.get('source')} {text}".casefold()
    own = model.get("memory_own")
    memory = int((own if own is not None else model.get("memory")) or 0)
    return ModelRow(name, cells, str(model.get("state")), memory, (active, waiting), speed, found)


def _speed(speed: float) -> str:
    return f"{speed:.1f}" if 0 < speed < 10 else f"{speed:.0f}" if speed else "-"


def memory_cell(model: Mapping[str, Any]) -> PageCell:
    """Return the memory that no earlier row counts. One that another row counts is `shared`."""
    if not model.get("memory"):
        return cell("-", "dim")
    own = model.get("memory_own", model["memory"])
    return cell(size(int(own))) if own else cell("shared", "dim")


def summary(rows: Sequence[ModelRow], all_models: int, order: str, wanted: str) -> str:
    """Return what the table shows: `3 of 200 models, by memory, with "qwen"`."""
    shown = f"{len(rows)} of {all_models}" if len(rows) != all_models else f"{all_models}"
    noun = "model" if all_models == 1 else "models"
    sort = "" if order == "manifest" else f", by {order}"
    return f"{shown} {noun}{sort}" + (f', with "{cell(wanted).text}"' if wanted else "")
