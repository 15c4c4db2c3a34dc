"""Conversations as rows and texts of the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.cli.inference.session_log import ChatLog
from mullama.cli.page.cells import PageCell, PageColumn, cell
from mullama.units import ago, counted, printable

CHAT_COLUMNS = (
    PageColumn("title", "CONVERSATION", 16, 0),
    PageColumn("model", "MODEL", 8, 1),
    PageColumn("turns", "TURNS", 5, 3, right=True),
    PageColumn("changed", "CHANGED", 12, 2),
)


def chat_rows(logs: Sequence[ChatLog], now: float) -> list[tuple[str, tuple[PageCell, ...]]]:
    """Return (id, cells) of conversations, the newest first."""
    ordered = sorted(logs, key=lambda log: -log.changed)
    return [
        (
            log.id,
            (
                cell(f"{log.name}: {log.title}" if log.name else log.title, "strong"),
                cell(log.model),
                cell(len(log.turns), "dim"),
                cell(ago(max(0.0, now - log.changed)), "dim"),
            ),
        )
        for log in ordered
    ]


def model_choices(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of the models and routes that a conversation can use."""
    found = [(str(m["name"]), str(m.get("state") or "")) for m in status.get("models") or ()]
    routes = status.get("routes") or {}
    names = {name for name, _ in found}
    for name, to in routes.items():
        if name not in names:
            found.append((str(name), f"route to {to}" if isinstance(to, str) else "route"))
    return found


def inert(text: str) -> str:
    """Return a text of several lines whose control and direction characters are escaped."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def thinking_title(thinking: str, *, running: bool) -> str:
    """Return the line of folded thinking: `thinking … (120 words)`."""
    words = counted(len(thinking.split()), "word")
    return f"thinking … ({words})" if running else f"thought ({words})"
