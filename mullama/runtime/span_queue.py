"""The spans of requests that wait for their export: a bounded queue, so that a dead collector costs no memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence

from mullama.manifest.spec import Otlp
from mullama.trace_context import Span

MOST = 4096
"""Spans that wait; beyond it new ones are dropped."""
BATCH = 512
"""Most spans of one export; as many that wait are exported at once."""


class SpanQueue:
    """Implements `runtime.base.Tracer`. Belongs to the event loop.

    declared: returns the block of the manifest in force. counts: the metric of spans, by event.
    """

    def __init__(self, declared: Callable[[], Otlp | None], counts: MutableMapping[str, int]) -> None:
        self._declared, self._counts = declared, counts
        self._waiting: deque[Span] = deque()
        self.full = asyncio.Event()
        """Set when a batch is complete."""

    @property
    def active(self) -> bool:
        otlp = self._declared()
        return otlp is not None and otlp.traces

    def samples(self, trace_id: str) -> bool:
        """See `runtime.base.Tracer`. The rule is OpenTelemetry's TraceIdRatioBased, so all servers agree on a trace."""
        otlp = self._declared()
        return otlp is not None and int(trace_id[16:], 16) < otlp.sample * 2**64

    def add(self, *spans: Span) -> None:
        room = MOST - len(self._waiting)
        self._waiting.extend(spans[:room])
        self.count("dropped", len(spans) - room)
        if len(self._waiting) >= BATCH:
            self.full.set()

    def take(self) -> Sequence[Span]:
        """Return the next batch, oldest first; empty if no span waits."""
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if len(self._waiting) < BATCH:
            self.full.clear()
        return batch

    def clear(self) -> None:
        """Forget the spans, because nothing is exported any more."""
        self._waiting.clear()
        self.full.clear()

    def count(self, event: str, spans: int) -> None:
        """Count spans that were exported or dropped."""
        if spans > 0:
            self._counts[event] = self._counts.get(event, 0) + spans

    def __len__(self) -> int:
        return len(self._waiting)
