"""The processor cores of this machine, parted among the workers that compute at the moment.

Two processes that each compute with all cores wait for each other at every barrier; with a part of the cores each,
they do not. So a worker is told its part whenever another one begins or ends to compute.
"""

from __future__ import annotations

from typing import Protocol


class CoreUser(Protocol):
    """A worker, as seen from here."""

    def share_cores(self, rank: int, of: int) -> None: ...


class CoreAllocator:
    """Who computes, in the order in which they began; each of them knows its rank and how many there are."""

    def __init__(self) -> None:
        self._busy: dict[CoreUser, None] = {}

    def begin(self, worker: CoreUser) -> None:
        """This worker has work from now on."""
        self._busy[worker] = None
        self._tell()

    def end(self, worker: CoreUser) -> None:
        """This worker has no work any more, or is gone."""
        self._busy.pop(worker, None)
        self._tell()

    def _tell(self) -> None:
        for rank, worker in enumerate(self._busy):
            worker.share_cores(rank, len(self._busy))
