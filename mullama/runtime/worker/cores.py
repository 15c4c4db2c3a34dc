"""Shares the processor cores among the workers that compute.

Two processes that each compute with all cores wait for each other at every barrier; with a share of the cores each,
they do not. So every worker gets its share whenever another one begins or ends to compute.
"""

from __future__ import annotations

from typing import Protocol


class CoreUser(Protocol):
    """A worker that takes a share of the cores."""

    def share_cores(self, rank: int, of: int) -> None: ...


class CoreAllocator:
    """Tracks the workers that compute, in the order in which they began, and sends each its rank and their number."""

    def __init__(self) -> None:
        self._busy: dict[CoreUser, None] = {}

    def begin(self, worker: CoreUser) -> None:
        """Register a worker that begins to compute."""
        self._busy[worker] = None
        self._share()

    def end(self, worker: CoreUser) -> None:
        """Remove a worker that has no more work, or that ended."""
        self._busy.pop(worker, None)
        self._share()

    def _share(self) -> None:
        for rank, worker in enumerate(self._busy):
            worker.share_cores(rank, len(self._busy))
