"""The lease of a fleet's controller on one host (pure): grant, renewal, release, and the fence of its changes.

A fence is a number that grows with every grant to another controller. A host refuses a change with a lower fence than
the highest that it saw, so a controller that lost its lease without a notice, as after a pause, changes nothing.
Times are seconds of this host's own monotonic clock, so the clocks of two hosts are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.errors import Conflict
from mullama.runtime.base import LeaseRequest
from mullama.struct import Struct
from mullama.units import duration


class FleetLease(Struct, frozen=True, kw_only=True):
    """A grant to one controller."""

    holder: str
    fleet: str
    seconds: float
    """The time of the grant or of its last renewal."""
    ends: float
    """The monotonic time at which it runs out."""


class LeaseState(Struct, frozen=True, kw_only=True):
    """The last grant on a host, and the highest fence that the host saw."""

    fence: int = 0
    lease: FleetLease | None = None
    """The last one; None after its release."""


def held(state: LeaseState, now: float) -> FleetLease | None:
    """Return the lease that is in force."""
    return state.lease if state.lease is not None and now < state.lease.ends else None


def granted(state: LeaseState, request: LeaseRequest, now: float) -> LeaseState:
    """Return the state after a grant or a renewal.

    Raises `Conflict` while another controller holds the lease, and for a fence that is not above that of earlier
    grants. The last holder may renew with its own fence, also late.
    """
    lease = held(state, now)
    if lease is not None and lease.holder != request.holder:
        raise Conflict(
            f"{lease.holder} changes the fleet {lease.fleet} now",
            hint=f"its lease runs out in {duration(lease.ends - now)} unless it is renewed",
        )
    renewed = state.lease is not None and state.lease.holder == request.holder and request.fence == state.fence
    if request.fence <= state.fence and not renewed:
        raise _stale(request.fence, state)
    taken = FleetLease(
        holder=request.holder, fleet=request.fleet, seconds=request.seconds, ends=now + request.seconds
    )  # fmt: skip
    return LeaseState(fence=request.fence, lease=taken)


def released(state: LeaseState, holder: str, now: float) -> LeaseState:
    """Return the state without the lease of this holder; the fence stays. Raises `Conflict` for that of another one."""
    lease = held(state, now)
    if lease is not None and lease.holder != holder:
        raise Conflict(f"the lease is held by {lease.holder}, not by {holder}")
    return LeaseState(fence=state.fence)


def admitted(state: LeaseState, fence: int) -> LeaseState:
    """Return the state after a change with this fence; a higher one is remembered.

    It may be higher, because a controller needs the lease of a majority of the hosts and not of every one. Raises
    `Conflict` for a lower one.
    """
    if fence < state.fence:
        raise _stale(fence, state)
    return state if fence == state.fence else LeaseState(fence=fence, lease=state.lease)


def _stale(fence: int, state: LeaseState) -> Conflict:
    by = f" by {state.lease.holder}" if state.lease is not None else ""
    return Conflict(
        f"the fence {fence} is too low: {state.fence} was used here{by}",
        hint="another controller changed the fleet since: plan again",
    )


def lease_tree(state: LeaseState, now: float) -> dict[str, Any]:
    """Return the published form: the fence, and the lease that is in force with its remaining seconds."""
    lease = held(state, now)
    current = None
    if lease is not None:
        current = {"holder": lease.holder, "fleet": lease.fleet, "seconds_left": round(lease.ends - now, 3)}
    return {"fence": state.fence, "lease": current}


def saved(state: LeaseState) -> dict[str, Any]:
    """Return the form for the state folder."""
    lease = state.lease
    tree = None if lease is None else {"holder": lease.holder, "fleet": lease.fleet, "seconds": lease.seconds}
    return {"fence": state.fence, "lease": tree}


def restored(tree: Mapping[str, Any], now: float) -> LeaseState:
    """Return the state of its saved form. A lease counts from now again: the clock before a restart is unknown.

    A lease of another form, as of another version, is left out, because a server must start with any file.
    """
    fence, kept = tree.get("fence"), tree.get("lease")
    return LeaseState(fence=fence if isinstance(fence, int) else 0, lease=_lease(kept, now) if kept else None)


def _lease(tree: Any, now: float) -> FleetLease | None:
    try:
        seconds = float(tree["seconds"])
        return FleetLease(holder=str(tree["holder"]), fleet=str(tree["fleet"]), seconds=seconds, ends=now + seconds)
    except (KeyError, TypeError, ValueError):
        return None
