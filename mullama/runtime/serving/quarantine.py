"""The quarantine of requests that ended a worker twice: they are refused for some minutes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from mullama.errors import Invalid

SECONDS = 600.0
STRIKES = 2
_KEPT = 1000


class Quarantine:
    """Counts, by fingerprint, how often a request ran when a worker died, and when last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._strikes: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def note(self, fingerprint: bytes) -> None:
        count, _ = self._strikes.pop(fingerprint, (0, 0.0))
        self._strikes[fingerprint] = (count + 1, self._clock())
        while len(self._strikes) > _KEPT:
            self._strikes.popitem(last=False)

    def check(self, fingerprint: bytes) -> None:
        """Raise `Invalid` for a request in quarantine."""
        count, when = self._strikes.get(fingerprint, (0, 0.0))
        if count >= STRIKES and self._clock() - when < SECONDS:
            raise Invalid("this request crashed the engine twice", hint=f"it is refused for {SECONDS / 60:g} minutes")
