"""Requests that ended a worker: after the second time they are refused for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from mullama.errors import Invalid

SECONDS = 600.0
STRIKES = 2
_KEPT = 1000


class Quarantine:
    """Fingerprints of requests that ran when a worker died, with how often and when last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._strikes: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def note(self, fingerprint: bytes) -> None:
        count, _ = self._strikes.pop(fingerprint, (0, 0.0))
        self._strikes[fingerprint] = (count + 1, self._clock())
        while len(self._strikes) > _KEPT:
            self._strikes.popitem(last=False)

    def check(self, fingerprint: bytes) -> None:
        """Raises for a request that did it too often."""
        count, when = self._strikes.get(fingerprint, (0, 0.0))
        if count >= STRIKES and self._clock() - when < SECONDS:
            raise Invalid("this request crashed the engine twice", hint=f"it is refused for {SECONDS / 60:g} minutes")
