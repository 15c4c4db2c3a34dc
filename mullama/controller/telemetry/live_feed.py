"""The live state of the server for pages: everything once, then what changed.

One task computes the status for all followers, and it ends with the last of them. A slow follower gets what changed
since its last update in one, so nothing piles up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from mullama.controller.event_log import EventLog

_INTERVAL, _IDLE_INTERVAL = 1.0, 2.0
"""Seconds between two looks at the status, while requests run and without any."""
_AFTER_EVENT = 0.1
"""Seconds between an event and the next look: the changes that belong together arrive together."""
_VOLATILE = ("uptime", "pid")
"""Fields that a page computes or does not need again."""


class LiveFeed:
    """Follows the status. Belongs to the event loop.

    status: returns the complete status. generated: returns the generated tokens of each model so far.
    load: returns the running and the waiting requests.
    """

    def __init__(
        self,
        event_log: EventLog,
        *,
        status: Callable[[], dict[str, Any]],
        generated: Callable[[], Mapping[str, int]],
        load: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event_log, self._status, self._generated, self._load = event_log, status, generated, load
        self._clock = clock
        self._version = 0
        self._complete: dict[str, Any] = {}
        """The status at the last look."""
        self._rows: dict[str, tuple[int, dict[str, Any]]] = {}
        """Each model with the version at which it changed."""
        self._server: dict[str, tuple[int, Any]] = {}
        """Each other field of the status, likewise."""
        self._names_version = 0
        """The version at which a model was added or removed, so that followers need everything again."""
        self._tokens: Mapping[str, int] = {}
        self._looked = 0.0
        self._event = 0
        """The newest event at the last look."""
        self._sample: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._followers = 0
        self._task: asyncio.Task[None] | None = None

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield updates with an `id`: first `status` and `events`, then `models`, `server`, `events` and `sample`."""
        self._followers += 1
        try:
            if self._task is None:
                self._look()
                self._task = asyncio.create_task(self._watch())
            seen, event = self._version, self._event_log.last
            yield self._update({"status": self._complete, "events": self._events_after(0)})
            while True:
                while seen == self._version:
                    await self._changed.wait()
                update: dict[str, Any] = {"sample": self._sample}
                if seen < self._names_version:
                    update["status"] = self._complete
                else:
                    update |= self._since(seen)
                if fresh := self._events_after(event):
                    update["events"], event = fresh, fresh[-1]["id"]
                seen = self._version
                yield self._update(update)
        finally:
            self._followers -= 1
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._task = None

    def _update(self, tree: dict[str, Any]) -> dict[str, Any]:
        return {"id": self._version, **tree}

    def _events_after(self, id: int) -> list[dict[str, Any]]:
        return [event for event in self._event_log.kept() if event["id"] > id]

    def _since(self, version: int) -> dict[str, Any]:
        """Return the models and fields that changed after a version."""
        rows = [row for changed, row in self._rows.values() if changed > version]
        fields = {name: value for name, (changed, value) in self._server.items() if changed > version}
        return ({"models": rows} if rows else {}) | ({"server": fields} if fields else {})

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL if any(self._load()) else _IDLE_INTERVAL):
                    await self._event_log.wait_after(self._event)
                    await asyncio.sleep(_AFTER_EVENT)
            self._look()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _look(self) -> None:
        """Compute the status, and note what changed."""
        self._version += 1
        self._event = self._event_log.last
        status = self._complete = self._status()
        models = {row["name"]: row for row in status["models"]}
        if models.keys() != self._rows.keys():
            self._names_version = self._version
        self._rows = {name: self._noted(self._rows.get(name), row) for name, row in models.items()}
        self._server = {
            name: self._noted(self._server.get(name), value)
            for name, value in status.items()
            if name not in _VOLATILE and name != "models"
        }
        self._take_sample()

    def _noted(self, before: tuple[int, Any] | None, value: Any) -> tuple[int, Any]:
        return before if before is not None and before[1] == value else (self._version, value)

    def _take_sample(self) -> None:
        """Compute the speed since the last look."""
        now, tokens = self._clock(), self._generated()
        seconds = max(now - self._looked, 0.001)
        running, waiting = self._load()
        # A request that is repeated takes its tokens with it, which is no negative speed.
        grown = {name: max(0, count - self._tokens.get(name, count)) for name, count in tokens.items()}
        self._sample = {
            "when": time.time(),
            "tokens": {name: round(count / seconds, 1) for name, count in grown.items() if count},
            "running": running,
            "waiting": waiting,
        }
        self._tokens, self._looked = tokens, now
