"""The quarantine of requests that end workers.

A worker computes several requests at once, so its end tells little about each of them:

* A death from outside (a signal, lack of memory, a stopped process) counts against no request.
* Of a death with several requests in work, each is *suspected* only. A suspected request runs alone: it is cleared
  when it ends well.
* A death with one request in work is counted against that request, once, however many clients sent it. Two of these,
  and the request is refused for some minutes.

So no request is refused for what another one did, and one that ends workers is found after a few deaths.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from mullama.codec import to_bytes
from mullama.errors import Invalid
from mullama.struct import Struct, replace

SECONDS = 600.0
STRIKES = 2
_KEPT = 1000


class _Record(Struct, frozen=True, kw_only=True):
    """A suspected request. strikes: deaths with this request alone; since: time of the last death."""

    strikes: int = 0
    since: float = 0.0


class Quarantine:
    """Remembers requests that were in work when a worker ended. Requests are dataclasses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def suspects(self, request: object) -> bool:
        """Return True for a request that must run alone. Raise `Invalid` for one that is refused."""
        record = self._record(request)
        if record is None:
            return False
        if record.strikes >= STRIKES:
            hint = f"it is refused for {SECONDS / 60:g} minutes"
            raise Invalid("this request crashed the engine twice", hint=hint)
        return True

    def blames(self, request: object) -> bool:
        """Return True for a request that ended a worker while it ran alone. It is not repeated."""
        record = self._record(request)
        return record is not None and record.strikes > 0

    def judge(self, requests: Iterable[object], *, at_fault: bool) -> bool:
        """Note the death of a worker, once. Return True when it is counted against one request.

        requests: those in work, None for work of another kind. at_fault: the death may be the fault of one of them.
        """
        work = {None if request is None else _fingerprint(request) for request in requests}
        if not at_fault or not work:
            return False
        alone = len(work) == 1 and None not in work
        for fingerprint in work - {None}:
            assert fingerprint is not None
            before = self._records.pop(fingerprint, _Record())
            self._records[fingerprint] = replace(before, strikes=before.strikes + alone, since=self._clock())
        while len(self._records) > _KEPT:
            self._records.popitem(last=False)
        return alone

    def clear(self, request: object) -> None:
        """Note that a request ended well."""
        if self._records:
            self._records.pop(_fingerprint(request), None)

    def _record(self, request: object) -> _Record | None:
        """Return what is known against a request. Without records, which is usual, nothing is computed."""
        oldest = self._clock() - SECONDS
        while self._records and next(iter(self._records.values())).since < oldest:
            self._records.popitem(last=False)
        return self._records.get(_fingerprint(request)) if self._records else None


def _fingerprint(request: object) -> bytes:
    return hashlib.sha256(to_bytes(request)).digest()
