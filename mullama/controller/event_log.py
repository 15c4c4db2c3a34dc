"""The events of the server: a bounded list with increasing ids, for followers and the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mullama.errors import masked
from mullama.trace_context import current

_KEPT = 1000
_LEVELS = {
    "not-applied": logging.ERROR,
    "fetch-failed": logging.ERROR,
    "invalid-manifest": logging.ERROR,
    "watch-failed": logging.ERROR,
    "not-listening": logging.ERROR,
    "certificate-refused": logging.ERROR,
    "git-failed": logging.ERROR,
    "git-edited": logging.WARNING,
    "usage-not-recorded": logging.ERROR,
    "held": logging.WARNING,
    "degraded": logging.ERROR,
    "worker-failed": logging.WARNING,
    "files-changed": logging.WARNING,
    "webhook-failed": logging.WARNING,
    "telemetry-failed": logging.WARNING,
    "peer-ejected": logging.WARNING,
    "tool-failed": logging.WARNING,
    "tools-lost": logging.WARNING,
    "tools-changed": logging.WARNING,
    "warning": logging.WARNING,
}

# The parts of the log, see `manifest.spec.observability.LogParts`. Events of other kinds belong to no part.
_PARTS = {
    **dict.fromkeys(
        (
            "applied", "not-applied", "invalid-manifest", "held", "git-commit", "git-failed", "git-edited",
            "files-changed", "watch-failed", "keys", "pruned", "refreshed",
        ),
        "manifest",
    ),
    **dict.fromkeys(("degraded", "recovered", "fetch-failed", "evicted"), "models"),
    **dict.fromkeys(("worker", "worker-failed"), "workers"),
    **dict.fromkeys(
        (
            "listening", "not-listening", "certificate", "certificate-refused", "peer-ejected", "peer-recovered",
            "tool-call", "tool-failed", "tools-listed", "tools-lost", "tools-changed", "tools-accepted",
        ),
        "server",
    ),
    **dict.fromkeys(
        ("usage-not-recorded", "webhook-failed", "telemetry-failed", "telemetry-recovered"), "telemetry"
    ),
}  # fmt: skip


class EventLog:
    """Keeps the last events and writes each to the log. Append from the event loop; any number of followers."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._last = 0
        self.generation = 0
        """The revision in force, which each event names: most follow from its apply."""
        self._added = asyncio.Event()

    def add(
        self, kind: str, subject: str = "", message: str = "", models: Sequence[str] = (), **facts: Any
    ) -> dict[str, Any]:
        """Add an event. models: the models that it is about."""
        self._last += 1
        subject, message = masked(subject), masked(message)
        if (trace := current()) is not None:
            facts |= trace.headers
        if models:
            facts["models"] = list(models)
        event = {
            "id": self._last,
            "when": time.time(),
            "kind": kind,
            "subject": subject,
            "message": message,
            "generation": self.generation,
            **facts,
        }
        self._events.append(event)
        _logger(kind).log(level_of(kind), "%s", _text(kind, subject, message), extra={"models": tuple(models)})
        self._added.set()
        self._added = asyncio.Event()
        return event

    def note(self, kind: str, subject: str, message: str, models: Sequence[str] = ()) -> None:
        """Add an event, as a callback without a result."""
        self.add(kind, subject, message, models)

    def kept(self) -> tuple[dict[str, Any], ...]:
        """Return the kept events, oldest first."""
        return tuple(self._events)

    @property
    def last(self) -> int:
        """The id of the newest event, 0 before the first."""
        return self._last

    async def wait_after(self, id: int) -> None:
        """Wait until there is an event after that id."""
        while self._last <= id:
            await self._added.wait()

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield every kept event after that id, then each new one; endless."""
        while True:
            added = self._added
            for event in [e for e in self._events if e["id"] > after]:
                after = event["id"]
                yield event
            await added.wait()


def level_of(kind: str) -> int:
    """Return the level of the log for a kind of event."""
    return _LEVELS.get(kind, logging.INFO)


def _logger(kind: str) -> logging.Logger:
    part = _PARTS.get(kind)
    return logging.getLogger(f"mullama.{part}" if part else "mullama")


def _text(kind: str, subject: str, message: str) -> str:
    """Return the event as the text of a log line."""
    if subject and subject in message:
        return message
    head = " ".join(part for part in ("" if kind == "warning" else kind.replace("-", " "), subject) if part)
    return ": ".join(part for part in (head, message) if part)
