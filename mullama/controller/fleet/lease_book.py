"""The lease of this host: its state in memory and in the state folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from mullama.controller.fleet.lease import LeaseState, admitted, granted, lease_tree, released, restored, saved
from mullama.errors import Unavailable
from mullama.runtime.base import LeaseRequest
from mullama.store.records import Records


class LeaseBook:
    """Implements `runtime.base.FleetLeases`: a state is on disk before it is in force.

    Its methods belong to the event loop.

    clock: seconds of a monotonic clock.
    """

    def __init__(self, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._clock = records, clock
        self._state = restored(records.lease(), clock())
        self._lock = asyncio.Lock()

    def tree(self) -> dict[str, Any]:
        return lease_tree(self._state, self._clock())

    def require(self, fence: int | None) -> None:
        if fence is not None:
            admitted(self._state, fence)

    async def take(self, request: LeaseRequest) -> dict[str, Any]:
        return await self._change(lambda state: granted(state, request, self._clock()))

    async def release(self, holder: str) -> dict[str, Any]:
        return await self._change(lambda state: released(state, holder, self._clock()))

    async def admit(self, fence: int | None) -> None:
        """Note a change with this fence; None for a change without one. Raises `Conflict` for one that is too low."""
        if fence is not None:
            await self._change(lambda state: admitted(state, fence))

    async def _change(self, step: Callable[[LeaseState], LeaseState]) -> dict[str, Any]:
        async with self._lock:
            new = step(self._state)
            if new != self._state:
                try:
                    await asyncio.to_thread(self._records.save_lease, saved(new))
                except OSError as error:
                    raise Unavailable(
                        f"the lease cannot be saved: {(error.strerror or str(error)).lower()}",
                        hint="the state folder of the server needs space, and rights to write",
                    ) from error
                self._state = new
            return self.tree()
