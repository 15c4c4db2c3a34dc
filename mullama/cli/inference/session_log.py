"""Conversations as values: turns, titles, and the messages of a request. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mullama.struct import Struct, field, replace

CHAT_FORMAT = "mullama.chat/1"
"""The format of one conversation on disk."""
UNNAMED = re.compile(r"\d{13}-[0-9a-f]{6}")
"""The ids of conversations that no user named: milliseconds since 1970, and a number of chance."""
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

    format: str = CHAT_FORMAT
    id: str
    """The name of its file: one that a user gave, or the time of its beginning."""
    model: str
    changed: float
    """Unix seconds."""
    system: str | None = None
    """System prompt, None for the model's own."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Sampling parameters of its requests, in the names of `/set parameter`."""
    turns: tuple[ChatTurn, ...] = ()

    @property
    def name(self) -> str:
        """The name that a user gave, "" without one."""
        return "" if UNNAMED.fullmatch(self.id) else self.id

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
