"""The lease of a controller on the hosts of a fleet: it needs a majority, and knows by its own clock how long it holds.

A host counts a lease from the moment when it grants it. The controller counts from the moment before it asks, so it
stops to believe in a grant before the host lets another controller in, however long the answer took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mullama.errors import Conflict, MullamaError, NotFound, Refused, Unavailable
from mullama.struct import Struct, field, replace
from mullama.targets.fleet.hosts import FleetHostPort, on_each

LEASE_SECONDS = 30.0
"""Time of one grant. A controller that ended without a release blocks the others for this time."""


class Grants(Struct, frozen=True, kw_only=True):
    """The hosts that granted the lease, and when each grant ends by the clock of the controller."""

    hosts: int
    """Number of hosts that are asked."""
    away: int = 0
    """Number of further hosts of the fleet, which are away."""
    ends: Mapping[str, float] = field(default_factory=dict)
    """The time by this clock, in seconds, at which each grant ends, by host."""

    @property
    def needed(self) -> int:
        """The majority of the fleet: two of two hosts, two of three. With so many hosts away, all of the others."""
        return min(self.hosts, (self.hosts + self.away) // 2 + 1)

    def hold(self, now: float) -> bool:
        """Return True while a majority of the hosts lets no other controller in."""
        return sum(now < end for end in self.ends.values()) >= self.needed

    def renewed(self, granted: Iterable[str], asked: float, seconds: float) -> Grants:
        """Return the grants after a round of requests. asked: the time before the first of them."""
        return replace(self, ends={**self.ends, **dict.fromkeys(granted, asked + seconds)})


def refusal(grants: Grants, answers: Mapping[str, Any]) -> MullamaError:
    """Return the reason why there is no majority. answers: by host, its answer or its error."""
    errors = {name: error for name, error in sorted(answers.items()) if isinstance(error, MullamaError)}
    missing = [f"{name} has no lease, so its mullama is older" for name, e in errors.items() if isinstance(e, NotFound)]
    if missing:
        return Refused("; ".join(missing), hint="upgrade mullama there")
    others = {error.message: error for error in errors.values() if isinstance(error, Conflict)}
    if others:
        return Conflict("; ".join(others), hint=next(iter(others.values())).hint)
    reasons = "; ".join(error.message for error in errors.values())
    return Unavailable(
        f"{len(grants.ends)} of {grants.hosts} hosts granted the lease, and {grants.needed} are needed: {reasons}",
        hint="a majority of the hosts must answer, so that no second controller changes the fleet",
    )


class FleetLeaseHold:
    """Takes the lease of a fleet, renews it in a thread, and releases it at the end of its `with` block.

    holder: names this run. away: the number of hosts of the fleet that are away. Raises on entry `Conflict` with the
    name of another holder, `Unavailable` without a majority, `Refused` for a host without leases.
    """

    def __init__(
        self, hosts: Sequence[FleetHostPort], fleet: str, holder: str, *, away: int = 0,
        seconds: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._hosts, self._fleet, self._holder = hosts, fleet, holder
        self._seconds, self._clock = seconds, clock
        self._grants = Grants(hosts=len(hosts), away=away)
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._keep, name="fleet-lease", daemon=True)
        self.fence = 0

    def __enter__(self) -> FleetLeaseHold:
        seen = on_each(self._hosts, lambda host: host.lease())
        fences = [int(answer["fence"]) for answer in seen.values() if not isinstance(answer, MullamaError)]
        self.fence = max(fences, default=0) + 1
        try:
            answers = self._take()
        except KeyboardInterrupt:
            self._release(self._hosts)  # the grants are unknown, and would stop other controllers for their time
            raise
        if not self._grants.hold(self._clock()):
            self._release(self._granted())
            raise refusal(self._grants, {**seen, **answers})
        self._renewal.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._renewal.is_alive():
            self._renewal.join()
        self._release(self._granted())

    def require(self) -> None:
        """Raise `Conflict` if this controller does not hold the lease of a majority any more."""
        if not self._grants.hold(self._clock()):
            raise Conflict(
                "the lease of the fleet was lost: too few hosts renewed it",
                hint="nothing more was changed; apply again to continue",
            )

    def _take(self) -> Mapping[str, Any]:
        asked = self._clock()
        answers = on_each(
            self._hosts, lambda host: host.take_lease(self._holder, self._fleet, self._seconds, self.fence)
        )
        granted = [name for name, answer in answers.items() if not isinstance(answer, MullamaError)]
        self._grants = self._grants.renewed(granted, asked, self._seconds)
        return answers

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            self._take()

    def _granted(self) -> list[FleetHostPort]:
        return [host for host in self._hosts if host.name in self._grants.ends]

    def _release(self, hosts: Sequence[FleetHostPort]) -> None:
        on_each(hosts, lambda host: host.release_lease(self._holder))  # one that does not answer waits for its end
