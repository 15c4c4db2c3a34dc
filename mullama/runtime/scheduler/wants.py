"""The units that should be open: asked for by requests, by the reconciler, or by the manifest. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from mullama.runtime.scheduler.events import FOREVER, UnitKey
from mullama.runtime.scheduler.heads import asked_units
from mullama.runtime.scheduler.state import Asked, Phase, State, Target

RESTARTING = 60.0
"""Seconds for which a unit is wanted after a request that went to another model because the worker had failed."""


def wanted(state: State, key: UnitKey, now: float) -> bool:
    """Return True if the unit should be open; the package's docstring has the reasons."""
    unit = state.units[key]
    if state.stopping:
        return False
    if unit.pinned:
        return True
    users = [s for s in state.users.get(key, ()) if s.name not in state.paused]
    if any(state.waiting.of(s.name) for s in users):
        return True
    if (unit.error is not None and not unit.no_room) or not users:
        return False
    if now - unit.fell_back_at < RESTARTING:
        return True
    if unit.ttl_override is not None:
        return unit.phase is not Phase.COLD and now - unit.last_used < unit.ttl_override
    return any(
        (s.when_room and unit.asked_ttl.get(s.name, FOREVER) > 0.0)
        or (s.at_start and s.name not in unit.asked_ttl and (s.ttl == FOREVER or unit.last_used == 0.0))
        or (unit.phase is not Phase.COLD and now - unit.last_used < unit.asked_ttl.get(s.name, s.ttl))
        for s in users
    )


def unit_ttl(state: State, key: UnitKey) -> float:
    """Return the seconds without a request after which the unit is closed: the longest that one of its models has."""
    unit = state.units[key]
    if unit.ttl_override is not None:
        return unit.ttl_override
    return max((unit.asked_ttl.get(s.name, s.ttl) for s in state.users.get(key, ())), default=FOREVER)


def wanted_cold(state: State, now: float) -> Sequence[Asked]:
    """Return wanted units that are closed: highest rank first, then those that a request waits for, longest first,
    then largest first, which fragments memory less. Those that are wanted only where there is room are last.
    """
    if state.stopping:
        return ()
    turns = asked_units(state)
    state.pins = dict.fromkeys(key for key in state.pins if key in state.units and state.units[key].pinned)
    for key in tuple(state.restarting):
        if key not in state.units or now - state.units[key].fell_back_at >= RESTARTING:
            del state.restarting[key]
    more: list[Asked] = []
    last: list[Asked] = []
    for number, key in enumerate(dict.fromkeys((*state.residents, *state.pins, *state.restarting))):
        unit = state.units.get(key)
        if unit is None or unit.phase is not Phase.COLD or key in state.turn_of or not wanted(state, key, now):
            continue
        worker, place = state.workers[key.weights], rank(state, key)
        asked = Asked(-place, FOREVER, -worker.bytes, number, Target(key, unit, worker, place))
        (last if only_room(state, key) else more).append(asked)
    if not more and not last:
        return turns
    return [*heapq.merge(turns, sorted(more)), *sorted(last)]


def is_asked(state: State, key: UnitKey) -> bool:
    """Return True for a unit that a request or the reconciler waits for."""
    return state.units[key].pinned or awaited(state, key)


def only_room(state: State, key: UnitKey) -> bool:
    """Return True for a unit that nothing needs: it is open where there is room, and closed first."""
    users, unit = state.users.get(key, ()), state.units[key]
    resident = any(s.when_room for s in users) and not any(s.at_start for s in users)
    return resident and not unit.pinned and not unit.leases and not awaited(state, key)


def rank(state: State, key: UnitKey) -> int:
    """Return the highest priority of the models of a unit."""
    return state.ranks.get(key, 0)


def awaited(state: State, key: UnitKey) -> bool:
    """Return True if a request waits for the unit."""
    return any(state.waiting.of(s.name) for s in state.users.get(key, ()))
