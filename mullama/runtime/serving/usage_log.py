"""The usage of keys, routes and models: counted on the event loop, written in batches by a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mullama.errors import MullamaError
from mullama.manifest.spec import Moved
from mullama.manifest.spec.readers import moves_of
from mullama.runtime.metering import Metered
from mullama.store.usage import SUBJECTS, SUMS, UsageFile, UsageQuery, UsageRow

T = TypeVar("T")
_WRITE_SECONDS = 2.0  # a crash loses the requests of this time at most
_PURGE_SECONDS = 3600.0
_JUMP_SECONDS = 300.0
_MOST_PENDING = 50_000  # rows in memory while the file cannot be written; each has some 300 bytes


class UsageLog:
    """Adds up the requests that end. `keep` returns the seconds for which usage is kept; 0 keeps none.

    report: receives the error of a write that failed, and None after one that succeeded. Requests are served, and
    their usage waits in memory for the next write. moved: the renames of the manifest, whose old names are recorded
    as the new ones.
    """

    def __init__(
        self,
        file: UsageFile,
        keep: Callable[[], float],
        report: Callable[[MullamaError | None], None],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        *,
        moved: Callable[[], tuple[Moved, ...]] = tuple,
    ) -> None:
        """clock: Unix time in seconds. steady: seconds that never jump."""
        self._file, self._keep, self._report, self._clock, self._steady = file, keep, report, clock, steady
        self._moved, self._renamed = moved, tuple[Moved, ...]()
        self._pending: dict[tuple[int, str, str, str], list[float]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._next_purge = float("-inf")  # by the steady clock
        self._ahead = clock() - steady()

    def add(self, ended: Metered) -> None:
        """Count a request."""
        if not self._keep():
            return
        usage, minute = ended.usage, int(self._clock()) // 60 * 60
        group = (minute, ended.key or "", ended.route, ended.model)
        sums = self._pending.get(group)
        if sums is None:
            if len(self._pending) >= _MOST_PENDING:
                return
            sums = self._pending[group] = [0] * len(SUMS)
        sums[0] += not ended.follows
        sums[1] += ended.result == "error"
        sums[2] += ended.result == "cancelled"
        sums[3] += usage.prompt_tokens
        sums[4] += usage.cached_tokens
        sums[5] += usage.completion_tokens
        sums[6] += usage.draft_tokens
        sums[7] += usage.draft_accepted
        sums[8] += ended.seconds

    async def keep_written(self) -> None:
        """Write what was counted every few seconds, and delete old rows every hour; endless."""
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what was counted."""
        batch, self._pending = self._pending, {}
        purge, moved = self._is_time_to_purge(), self._moved()
        if not batch and not purge and moved == self._renamed:
            return
        try:
            await self._run(lambda: self._write(batch, moved, purge=purge))
        except MullamaError as error:
            self._take_back(batch)
            self._report(error)
        else:
            self._report(None)

    def _is_time_to_purge(self) -> bool:
        """Return True once an hour. A clock that jumped may be wrong, and soon right again: nothing is deleted then."""
        now, ahead = self._steady(), self._clock() - self._steady()
        if abs(ahead - self._ahead) > _JUMP_SECONDS:
            self._next_purge = now + _PURGE_SECONDS
        self._ahead = ahead
        return now >= self._next_purge

    def _write(
        self, batch: dict[tuple[int, str, str, str], list[float]], moved: tuple[Moved, ...], *, purge: bool
    ) -> None:
        names = {subject: moves_of(moved, subject) for subject in SUBJECTS}
        if moved != self._renamed:
            self._file.rename((subject, old, new) for subject in SUBJECTS for old, new in names[subject].items())
            self._renamed = moved
        if batch:
            # Requests that began under an old name may end later.
            self._file.add(
                UsageRow(
                    minute=minute, key=names["key"].get(key, key), model=names["model"].get(model, model),
                    route=names["model" if route == model else "route"].get(route, route), sums=tuple(sums),
                )
                for (minute, key, route, model), sums in batch.items()
            )  # fmt: skip
        if purge:
            self._file.purge(self._keep(), self._clock())
            self._next_purge = self._steady() + _PURGE_SECONDS

    def _take_back(self, batch: dict[tuple[int, str, str, str], list[float]]) -> None:
        """Count a batch again that was not written."""
        newer, self._pending = self._pending, batch
        for group, sums in newer.items():
            known = batch.get(group)
            if known is not None:
                batch[group] = [one + other for one, other in zip(known, sums, strict=True)]
            elif len(batch) < _MOST_PENDING:
                batch[group] = sums

    async def read(self, query: UsageQuery) -> list[dict[str, Any]]:
        """Return sums, with the requests that have just ended. See `UsageFile.read`."""
        await self.write()
        return await self._run(lambda: self._file.read(query, self._clock()))

    async def last_used(self) -> dict[str, int]:
        """Return when each key was last used, see `UsageFile.last_used`."""
        await self.write()
        return await self._run(self._file.last_used)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Write what was counted, and close the file."""
        await self.write()
        self._thread.shutdown()
        self._file.close()
