"""The levels of the rate limits on disk, so that a restart grants nothing anew."""

from __future__ import annotations

import asyncio
import logging

from mullama.runtime.rates.book import RateBook
from mullama.store.records import Records

_SAVE_SECONDS = 2.0  # a crash forgets the requests of this time at most
_log = logging.getLogger("mullama.telemetry")


class RateState:
    """Reads the levels at the start, and saves them while they change."""

    def __init__(self, book: RateBook, records: Records) -> None:
        self._book, self._records = book, records
        self._failed = False
        book.restore(records.rates())

    async def keep_saved(self) -> None:
        """Save the levels every few seconds in which they changed; endless."""
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            if self._book.changed:
                await asyncio.to_thread(self._write, self._book.save())

    def close(self) -> None:
        """Save the levels for the last time."""
        if self._book.changed:
            self._write(self._book.save())

    def _write(self, levels: dict[str, object]) -> None:
        """Write the levels. A full disk is logged once: the limits hold in memory, and requests are served."""
        try:
            self._records.save_rates(levels)
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.warning("the levels of the rate limits cannot be saved: %s", error)
            self._failed = True
