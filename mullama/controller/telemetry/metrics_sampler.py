"""Reads the counters of this server every few seconds into the ring of the last hour."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mullama.controller.current import Current
from mullama.controller.event_log import EventLog
from mullama.controller.shared_memory import own_memory
from mullama.controller.telemetry.metrics_ring import INTERVAL, Mark, MetricsRing, ModelReading
from mullama.machine import usable_memory
from mullama.runtime.base import MetricsQuery
from mullama.runtime.metrics import Metrics, ModelMetrics
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.device_use import device_use
from mullama.runtime.snapshot import Deployment

_MARKS = ("applied", "not-applied", "invalid-manifest", "held")
"""The events that are marks of the history."""


class MetricsSampler:
    """Takes a sample every few seconds. Belongs to the event loop.

    current: returns the state in force. clock: seconds that never go back. wall: Unix time in seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        pool: Pool,
        current: Callable[[], Current],
        event_log: EventLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics, self._pool, self._current, self._event_log = metrics, pool, current, event_log
        self._clock, self._wall = clock, wall
        self._ring = MetricsRing(clock())
        self._event = 0
        self._readings: dict[str, tuple[tuple[int, int], ModelReading]] = {}
        """The last reading of each model, with the numbers of its times."""

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.sleep(until_next(self._clock()))
            self.take()

    def take(self) -> None:
        """Take a sample now."""
        now, current = self._clock(), self._current()
        deployments = current.snapshot.deployments
        ready = {name: d for name, d in deployments.items() if self._pool.phase(d.unit) is Phase.READY}
        devices: Counter[str] = Counter()
        for deployment in ready.values():
            for use in device_use(deployment, self._pool):
                devices[use["name"]] += use["bytes"]
        self._ring.add(now, self._read_models(current, ready), available=usable_memory().available, devices=devices)
        self._note_marks(now)

    def read(self, query: MetricsQuery) -> dict[str, Any]:
        """Return the values that a query asks for, see `MetricsRing.read`."""
        now, wall = self._clock(), self._wall()
        since = now - max(0.0, wall - query.since)
        found = self._ring.read(now, wall=wall, since=since, step=query.step, model=query.model)
        return {"format": "mullama.metrics/1", "now": wall, "interval": INTERVAL, **found}

    def _read_models(self, current: Current, ready: Mapping[str, Deployment]) -> dict[str, ModelReading]:
        state, tokens = self._pool.state, self._metrics.tokens()
        running = Counter(name for name, _ in state.running.values())
        memory = own_memory(
            {name: d.serve.weights_bytes + d.serve.context_bytes for name, d in ready.items()}, current.snapshot
        )
        found = {}
        for name in {**self._metrics.models, **tokens, **running, **current.snapshot.deployments}:
            counts = self._metrics.models.get(name, _NONE)
            outcomes = counts.requests
            sums = (outcomes.get("ok", 0), outcomes.get("error", 0), outcomes.get("cancelled", 0))
            levels = (running[name], state.queued(name), memory.get(name, 0), *self._cache(ready.get(name)))
            found[name] = self._reading(name, (*sums, *tokens.get(name, (0, 0, 0))), levels, counts)
        self._readings = {name: self._readings[name] for name in found}
        return found

    def _reading(self, name: str, sums: Sequence[int], levels: Sequence[int], counts: ModelMetrics) -> ModelReading:
        """Return a reading; of what did not change since the last time, the same objects, which are not copied."""
        spreads, times = (counts.first_tokens, counts.waits), (counts.first_tokens.total, counts.waits.total)
        known_times, known = self._readings.get(name, (None, _UNREAD))
        if known_times == times and (known.sums, known.levels) == (sums, levels):
            return known
        kept = known.spreads if known_times == times else tuple([dict(spread.counts) for spread in spreads])
        reading = ModelReading(sums=sums, levels=levels, spreads=kept)
        self._readings[name] = times, reading
        return reading

    def _cache(self, deployment: Deployment | None) -> tuple[int, int]:
        """Return the tokens for which the context of a model has room, and those in use; 0 for one that is not open."""
        facts = self._pool.context_facts(deployment.unit) if deployment else None
        worker = self._pool.worker(deployment.unit) if deployment else None
        if deployment is None or facts is None or worker is None:
            return 0, 0
        used = {cache.context: cache.used for cache in worker.seen.caches}
        return facts.pool or facts.size * facts.parallel, used.get(deployment.unit.context, 0)

    def _note_marks(self, now: float) -> None:
        """Note the changes of the manifest since the last sample, at the time at which they happened."""
        if self._event == self._event_log.last:
            return
        wall = self._wall()
        for event in self._event_log.kept():
            if event["id"] > self._event and event["kind"] in _MARKS:
                age = min(max(0.0, wall - event["when"]), INTERVAL)  # less, if the clock was set
                self._ring.mark(
                    Mark(
                        at=now - age,
                        kind=event["kind"],
                        message=event["message"],
                        generation=event["generation"],
                    )
                )
        self._event = self._event_log.last


def until_next(now: float) -> float:
    """Return the seconds to the next sample: the middle of an interval, so that a late one is in the same step."""
    left = INTERVAL - (now - INTERVAL / 2) % INTERVAL
    return left if left > INTERVAL / 10 else left + INTERVAL  # a timer that fired a little early


_NONE, _UNREAD = ModelMetrics(), ModelReading()
