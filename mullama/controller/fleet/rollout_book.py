"""The record of the last rollout of the fleet of this host, as its controller left it here, and in the state folder."""

from __future__ import annotations

import asyncio

from mullama.codec import from_tree, to_tree
from mullama.errors import Invalid, Unavailable
from mullama.runtime.fleet import RolloutRecord
from mullama.store.records import Records


class RolloutBook:
    """Keeps the newest record. Its methods belong to the event loop."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._record = _restored(records)
        self._lock = asyncio.Lock()

    @property
    def record(self) -> RolloutRecord | None:
        return self._record

    async def leave(self, record: RolloutRecord) -> None:
        """Keep a record, unless the present one is newer. Raises `Unavailable` if it cannot be saved."""
        async with self._lock:
            if self._record is not None and record.order < self._record.order:
                return
            try:
                await asyncio.to_thread(self._records.save_rollout, to_tree(record))
            except OSError as error:
                raise Unavailable(
                    f"the record of the rollout cannot be saved: {(error.strerror or str(error)).lower()}",
                    hint="the state folder of the server needs space, and rights to write",
                ) from error
            self._record = record


def _restored(records: Records) -> RolloutRecord | None:
    """Return the saved record; None for one of another form, because a server must start with any file."""
    tree = records.rollout()
    try:
        return from_tree(RolloutRecord, tree, "the record of the rollout") if tree else None
    except Invalid:
        return None
