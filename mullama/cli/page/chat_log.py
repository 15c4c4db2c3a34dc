"""Conversations as rows and texts of the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mullama.cli.inference.session_log import ChatLog
from mullama.cli.page.cells import PageCell, PageColumn, cell
from mullama.units import ago, counted, printable

_LONGEST_LINE, _LONGEST_WORD = 1000, 500  # characters

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


class LinePlace(NamedTuple):
    """The place at the end of a text: the lengths of its last line and of its last word."""

    line: int = 0
    word: int = 0


_BEGIN = LinePlace()


def broken(text: str, place: LinePlace = _BEGIN) -> tuple[str, LinePlace]:
    """Return a text with line breaks in very long lines and words, and the place at its end.

    A break at a space changes nothing in a paragraph. A block of code with one line of 200,000 characters takes
    minutes to draw. place: that at the end of the text before it.
    """
    parts: list[str] = []
    line, word = place
    for c in text:
        if c != "\n" and (word >= _LONGEST_WORD or (c == " " and line >= _LONGEST_LINE)):
            parts.append("\n")
            line = word = 0
        parts.append(c)
        line = 0 if c == "\n" else line + 1
        word = 0 if c in " \n" else word + 1
    return "".join(parts), LinePlace(line, word)


def thinking_title(thinking: str, *, running: bool) -> str:
    """Return the line of folded thinking: `thinking … (120 words)`."""
    words = counted(len(thinking.split()), "word")
    return f"thinking … ({words})" if running else f"thought ({words})"
