"""A worker without weights that is kept ready, so that a load need not wait for its process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mullama.errors import EngineFailed
from mullama.machine import usable_memory
from mullama.runtime.worker.parent import WorkerClient
from mullama.runtime.worker.process import Death
from mullama.runtime.worker.spawn import SpawnedWorker, SpawnWorker

PAUSE = 5.0
"""Seconds between a load and the start of the next spare worker, for the first requests of the model."""
_MEMORY = 1024**3  # bytes that must be available for a spare worker, which takes a tenth of it

_Made = TypeVar("_Made", WorkerClient, WorkerClient | None)

MakeWorker = Callable[[Callable[[Death], None], Callable[[], SpawnedWorker]], Awaitable[WorkerClient]]
"""Connects to a worker: what to call at its death, and the function that starts its process."""


class SpareWorker:
    """Keeps one worker ready. It counts as no model."""

    def __init__(self, make: MakeWorker, spawn: SpawnWorker) -> None:
        self.task: asyncio.Task[WorkerClient] | None = None
        """The start of the worker; None while there is no worker to take."""
        self._make = make
        self._spawn = spawn
        self._spawned: SpawnedWorker | None = None  # a process that the task has not taken
        self._engine = ""  # keep none
        self._pause = PAUSE
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, engine: str, spawned: SpawnedWorker | None = None, pause: float = PAUSE) -> None:
        """Keep a worker ready from now on.

        engine: the one that it has imported. spawned: a process that has been started for it. pause: see `PAUSE`.
        """
        self._engine, self._pause = engine, pause
        self._start(spawned)

    def renew(self) -> None:
        """Start the next worker after a pause."""
        if self._engine and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._start)

    async def take(self, died: Callable[[Death], None]) -> WorkerClient | None:
        """Return the worker, which is no spare from now on; None where there is none, or it failed to start."""
        task, self.task = self.task, None
        if task is None:
            return None
        try:
            worker = await worker_of(task)
        except EngineFailed:  # the load that follows reports the reason
            return None
        return worker if worker.take_over(died) else None

    async def end(self) -> None:
        """End the worker, and keep none from now on."""
        self._engine = ""
        if self._timer is not None:
            self._timer.cancel()
        task, self.task = self.task, None
        if task is not None:
            await end_worker_of(task)
        if self._spawned is not None:  # the task was cancelled before its first step
            self._spawned.end()
            self._spawned = None

    def _start(self, spawned: SpawnedWorker | None = None) -> None:
        self._timer = None
        if self.task is None and (spawned is not None or _has_memory()):
            self._spawned = spawned
            self.task = asyncio.create_task(self._connect())
            self.task.add_done_callback(_ignore_failure)
        elif spawned is not None:
            spawned.end()

    async def _connect(self) -> WorkerClient:
        def spawn() -> SpawnedWorker:
            spawned, self._spawned = self._spawned, None
            return spawned or self._spawn(self._engine)

        return await self._make(lambda death: None, spawn)


async def worker_of(making: asyncio.Task[_Made]) -> _Made:
    """Return the worker that a task makes; errors are those of the task. A cancellation ends the task and its worker.

    `await` alone loses the worker of a task that returns in the moment of the cancellation.
    """
    try:
        return await making
    except asyncio.CancelledError:
        await end_worker_of(making)
        raise


async def end_worker_of(making: asyncio.Task[_Made]) -> None:
    """End a task that makes a worker, and the worker that it has made."""
    making.cancel()
    for made in await asyncio.gather(making, return_exceptions=True):
        if isinstance(made, WorkerClient):
            await made.kill()


def _ignore_failure(task: asyncio.Task[WorkerClient]) -> None:
    """Mark the failure of a spare worker as seen: the load that would have taken it starts its own."""
    if not task.cancelled():
        task.exception()


def _has_memory() -> bool:
    available = usable_memory().available
    return not available or available >= _MEMORY
