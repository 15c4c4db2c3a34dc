"""Conversations of the page as values: turns, titles, and the messages of a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.cli.page.cells import PageCell, PageColumn, cell
from mullama.struct import Struct, replace
from mullama.units import ago, counted, printable

CHAT_COLUMNS = (
    PageColumn("title", "CONVERSATION", 16, 0),
    PageColumn("model", "MODEL", 8, 1),
    PageColumn("turns", "TURNS", 5, 3, right=True),
    PageColumn("changed", "CHANGED", 12, 2),
)
_TITLE = 48


class ChatTurn(Struct, frozen=True, kw_only=True):
    """A question with its answer, which may be incomplete."""

    question: str
    files: tuple[str, ...] = ()
    """Names of the images and sounds of the question."""
    media: tuple[str, ...] = ()
    """Their contents in base64."""
    answer: str = ""
    thinking: str = ""
    note: str = ""
    """How the answer ended: its counts, `stopped`, or the error."""
    failed: bool = False


class ChatLog(Struct, frozen=True, kw_only=True):
    """One conversation, as it is kept on disk."""

    format: str = "mullama.chat/1"
    id: str
    model: str
    changed: float
    """Unix seconds."""
    turns: tuple[ChatTurn, ...] = ()

    @property
    def title(self) -> str:
        """The beginning of the first question."""
        first = " ".join(self.turns[0].question.split()) if self.turns else ""
        text = first or (self.turns[0].files[0] if self.turns and self.turns[0].files else "new conversation")
        return text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…"


def asked(log: ChatLog, turn: ChatTurn, now: float) -> ChatLog:
    """Return the conversation with one more turn."""
    return replace(log, turns=(*log.turns, turn), changed=now)


def with_last(log: ChatLog, now: float, **fields: Any) -> ChatLog:
    """Return the conversation with these fields of its last turn."""
    return replace(log, turns=(*log.turns[:-1], replace(log.turns[-1], **fields)), changed=now)


def without_last(log: ChatLog) -> ChatLog:
    """Return the conversation without its last turn, for another answer or an edited question."""
    return replace(log, turns=log.turns[:-1])


def messages(turns: Sequence[ChatTurn]) -> list[dict[str, Any]]:
    """Return the turns that have an answer as messages of `/api/models/chat`."""
    found: list[dict[str, Any]] = []
    for turn in turns:
        if turn.answer:
            images = {"images": list(turn.media)} if turn.media else {}
            found.append({"role": "user", "content": turn.question, **images})
            found.append({"role": "assistant", "content": turn.answer})
    return found


def chat_rows(logs: Sequence[ChatLog], now: float) -> list[tuple[str, tuple[PageCell, ...]]]:
    """Return (id, cells) of conversations, the newest first."""
    ordered = sorted(logs, key=lambda log: -log.changed)
    return [
        (
            log.id,
            (
                cell(log.title, "strong"),
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
