"""What happened to the stack: a bounded list of events with increasing ids, to be followed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

_KEPT = 1000


class EventLog:
    """Append from the event loop; any number of followers. Each event is a line of the log, too."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._last = 0
        self._more = asyncio.Event()

    def add(self, kind: str, subject: str = "", message: str = "", **facts: Any) -> dict[str, Any]:
        self._last += 1
        event = {"id": self._last, "when": time.time(), "kind": kind, "subject": subject, "message": message, **facts}
        self._events.append(event)
        logging.getLogger("mullama").info("%s", " ".join(part for part in (kind, subject, message) if part))
        self._more.set()
        self._more = asyncio.Event()
        return event

    def note(self, kind: str, subject: str, message: str) -> None:
        """The same, for those who give no facts and want nothing back."""
        self.add(kind, subject, message)

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Every event after that id, then each new one; never ends by itself."""
        while True:
            more = self._more
            for event in [e for e in self._events if e["id"] > after]:
                after = event["id"]
                yield event
            await more.wait()
