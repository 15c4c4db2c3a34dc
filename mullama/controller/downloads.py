"""Fetches under way: whoever needs the same files waits for the same fetch, and one that nobody wants any more ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mullama.plan.observed import KnownFiles

Tell = Callable[[dict[str, Any]], None]
Begin = Callable[[Tell], Coroutine[Any, Any, KnownFiles]]


@dataclass(eq=False, slots=True)
class _Flight:
    """One fetch, and those who are told how far it is."""

    readers: list[Tell] = field(default_factory=list)
    task: asyncio.Task[KnownFiles] | None = None

    def tell(self, line: dict[str, Any]) -> None:
        for reader in tuple(self.readers):
            reader(line)


class SharedDownloads:
    """By a key that says everything a fetch depends on. All methods belong to the event loop."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}
        self._wanted: Counter[Hashable] = Counter()

    @contextmanager
    def wanting(self, keys: Iterable[Hashable]) -> Iterator[None]:
        """While this is held, fetches with these keys go on, whoever else leaves them."""
        held = tuple(keys)
        self._wanted.update(held)
        try:
            yield
        finally:
            self._wanted.subtract(held)
            for key in held:
                if self._wanted[key] <= 0:
                    del self._wanted[key]
                    self._end(key)

    async def have(self, key: Hashable, begin: Begin, tell: Tell) -> KnownFiles:
        """What the fetch with this key brings; it is begun where nobody has done so."""
        with self.wanting((key,)):
            flight = self._flights.get(key) or self._begin(key, begin)
            flight.readers.append(tell)
            try:
                assert flight.task is not None
                return await asyncio.shield(flight.task)
            finally:
                flight.readers.remove(tell)

    def _begin(self, key: Hashable, begin: Begin) -> _Flight:
        flight = self._flights[key] = _Flight()
        flight.task = task = asyncio.create_task(begin(flight.tell))
        task.add_done_callback(lambda done: self._landed(key, flight, done))
        return flight

    def _landed(self, key: Hashable, flight: _Flight, done: asyncio.Task[KnownFiles]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not done.cancelled():
            done.exception()  # whoever waited has it; who left does not care

    def _end(self, key: Hashable) -> None:
        """Nobody wants it: what came so far stays for the next one."""
        flight = self._flights.pop(key, None)
        if flight is not None and flight.task is not None:
            flight.task.cancel()
