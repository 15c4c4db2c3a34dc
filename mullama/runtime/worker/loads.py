"""Loads of weights that run: their progress, and the one that begins before the digests of its files are known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mullama.engines.base import EngineChoice
from mullama.errors import MullamaError
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.process import Death
from mullama.runtime.worker.spare import SpareWorker, end_worker_of, worker_of
from mullama.struct import Struct

_LONG_STALL = 10.0  # seconds without progress that are worth a remark


class RunningLoad(Struct):
    """A load of weights that runs."""

    worker: WorkerClient
    share: float = 0.0
    """0 to 1."""

    def report(self, share: float) -> None:
        self.share = share

    @property
    def message(self) -> str:
        """The progress in words."""
        stalled = self.worker.stalled
        waits = f"; no progress for {stalled:.0f} s" if stalled >= _LONG_STALL else ""
        return f"the weights are being loaded: {self.share:.0%}{waits}"


class EarlyLoad:
    """Loads weights in the spare worker while their files are hashed and their template is read.

    Nothing is served from them until `take`: the files were hashed in the states of the load by then, and are compared
    with them once more after it.
    """

    def __init__(self, choice: EngineChoice, stamps: Mapping[str, str], spare: SpareWorker) -> None:
        self.running: RunningLoad | None = None
        """None until the spare worker has connected."""
        self._of = (choice, stamps)
        self._spare = spare
        self.task = asyncio.create_task(self._load(choice))
        """The load, which returns the worker, or None without a spare worker."""

    def is_of(self, choice: EngineChoice, stamps: Mapping[str, str]) -> bool:
        """Return True for the load of these weights, from files in these states; see `store.index.stamp`."""
        return self._of == (choice, stamps)

    async def take(self, died: Callable[[Death], None]) -> WorkerClient | None:
        """Return the worker with its weights, or None where the load failed."""
        try:
            worker = await worker_of(self.task)
        except MullamaError:  # the load that follows reports the reason
            return None
        return worker if worker is not None and worker.take_over(died) else None

    async def end(self) -> None:
        await end_worker_of(self.task)

    async def _load(self, choice: EngineChoice) -> WorkerClient | None:
        worker = await self._spare.take(lambda death: None)
        if worker is not None:
            self.running = RunningLoad(worker)
            await worker.load(choice, self.running.report)
        return worker
