"""The passes that close units to make room: for a wanted unit, or within a lowered budget. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mullama.errors import MullamaError, Refused
from mullama.runtime.scheduler.events import FOREVER, CloseUnit, Command, Evicted, StopWorker, UnitKey
from mullama.runtime.scheduler.room import Lack, Taken, frees, over_budget, shares_group, short
from mullama.runtime.scheduler.state import Asked, Phase, State, forget_start, unit_failed
from mullama.runtime.scheduler.wants import awaited, is_asked, only_room, rank
from mullama.units import size

LEAST_STAY = 10.0
"""Seconds for which a unit that requests use stays open before it makes room for one of the same rank."""
LEAST_IDLE = 1.0
"""Seconds for which a unit must be idle to make room sooner, once it was closed for another one and opened again."""
THRASHING = 60.0
"""Seconds after such a close in which it counts."""


def evict(state: State, order: Sequence[Asked], now: float) -> Iterator[Command]:
    """1. fits: nothing  2. close an idle unit of lower rank  3. let busy ones yield  4. wait  5. otherwise refuse."""
    taken, before = Taken(state), Lack()
    room = taken.copy()
    room.end_closing()
    for key, unit, worker in (asked.target[:3] for asked in order):
        if "*" in before.places:
            return  # every other one waits for the memory of all devices, too
        if unit.phase is not Phase.COLD or worker.permanently_failed or worker.retry_at > now:
            continue
        lack = taken.lack(key)
        if not lack or only_room(state, key) or (before and frees(state, key, before)):
            continue  # it fits, displaces nothing, or has its turn after an earlier one
        if is_asked(state, key):
            before.add(lack)
        if not room.lack(key):
            continue  # the units that are being closed make the room
        useful = [k for k in _replaceable(state, taken.units, key, lack) if frees(state, k, lack)]
        idle = [k for k in useful if _is_idle(state, k) and not _lingers(state, key, k, now)]
        if closes := room.closes_for(key, idle):
            yield from _make_room(state, room, closes, key, now)
            continue
        # The order depends on nothing that a request changes: else two units could take turns at being busy for ever.
        turn_over = [k for k in useful if k in idle or now - state.units[k].opened_at >= LEAST_STAY]
        turn_over.sort(key=lambda k: (rank(state, k), state.units[k].opened_at))
        if is_asked(state, key) and (closes := room.closes_for(key, turn_over)):
            for victim in closes:
                state.units[victim].yielding = True
            if not any(state.units[victim].leases for victim in closes):
                yield from _make_room(state, room, closes, key, now)
        elif not _may_free(state, taken, key, lack, now):
            unit.no_room = True
            yield from unit_failed(state, key, _does_not_fit(state, taken, key, lack))


def shrink(state: State, now: float) -> Iterator[Command]:
    """Close idle units on demand, one after the other, while more is in memory than a lowered budget allows.

    Without any, stop a worker whose units wait for memory: it may have been started under the old budget.
    """
    if not over_budget(state):
        return
    lack = Lack(places=set(short(state, Taken(state).memory)))
    idle = (k for k in state.live_units if _is_idle(state, k))
    victims = [k for k in idle if not _stays_loaded(state, k) and frees(state, k, lack)]
    if victims:
        least = min(victims, key=lambda k: _least_wanted(state, k))
        yield from _evict(state, least, "because the budget was lowered", now)
        return
    useless = [k for k in _waiting_with_workers(state) if frees(state, k, lack)]
    if useless:
        weights = min(useless, key=lambda k: _least_wanted(state, k)).weights
        state.set_worker(weights, Phase.CLOSING)
        forget_start(state, weights)
        yield StopWorker(weights=weights)


def _waiting_with_workers(state: State) -> Iterator[UnitKey]:
    """Yield the closed units whose worker is ready and has no open one."""
    for weights, worker in state.live_workers.items():
        units = state.units_of.get(weights, {})
        if worker.phase is Phase.READY and all(unit.phase is Phase.COLD for unit in units.values()):
            yield from units


def _make_room(state: State, room: Taken, closes: list[UnitKey], key: UnitKey, now: float) -> Iterator[Command]:
    for victim in closes:
        room.closed(victim)
        yield from _evict(state, victim, f"to make room for {_names(state, key)}", now)


def _evict(state: State, key: UnitKey, reason: str, now: float) -> Iterator[Command]:
    unit = state.units[key]
    state.set_unit(key, Phase.CLOSING)
    unit.replaced_at, unit.displaced = now, True
    if not any(s.when_room for s in state.users.get(key, ())):
        # With a time to live of 0 it stays closed until a request, even if it loads at start. Otherwise two units
        # would evict each other for ever.
        unit.ttl_override = 0.0
    yield CloseUnit(unit=key)
    yield Evicted(models=_names(state, key), reason=reason)


def _names(state: State, key: UnitKey) -> str:
    return ", ".join(sorted(s.name for s in state.users.get(key, ()))) or "a replaced model"


def _replaceable(state: State, units: Collection[UnitKey], key: UnitKey, lack: Lack) -> list[UnitKey]:
    """Return those of the units that may be closed for this one once they are idle, the least wanted first.

    A unit of a lower rank may be, and one of the same rank that does not stay loaded or that is in the same group.
    """
    least = rank(state, key)

    def may_be_closed(other: UnitKey) -> bool:
        unit = state.units[other]
        if other == key or unit.phase is not Phase.READY or unit.pinned:
            return False
        if only_room(state, other) or (own := rank(state, other)) < least:
            return True
        return own == least and (shares_group(state, other, lack) or not _stays_loaded(state, other))

    return sorted(filter(may_be_closed, units), key=lambda k: _least_wanted(state, k))


def _lingers(state: State, key: UnitKey, victim: UnitKey, now: float) -> bool:
    """Return True for an idle unit that stays for a moment longer, so that two units do not replace each other all the
    time: one of the same rank that was closed for another one and opened again a short time ago.
    """
    unit = state.units[victim]
    if only_room(state, victim) or rank(state, victim) < rank(state, key) or now - unit.replaced_at >= THRASHING:
        return False
    return now - unit.opened_at < LEAST_STAY and now - unit.last_used < LEAST_IDLE


def _is_idle(state: State, key: UnitKey) -> bool:
    """Return True for an open unit that nothing uses, pins or waits for."""
    unit = state.units[key]
    return unit.phase is Phase.READY and not unit.leases and not unit.pinned and not awaited(state, key)


def _least_wanted(state: State, key: UnitKey) -> tuple[bool, int, float]:
    """Return the key by which the least wanted unit is first: not needed, lowest rank, then least recently used."""
    return not only_room(state, key), rank(state, key), state.units[key].last_used


def _stays_loaded(state: State, key: UnitKey) -> bool:
    """Return True for a unit that loads at start and has no time to live."""
    return any(s.at_start and s.ttl == FOREVER for s in state.users.get(key, ()))


def _may_free(state: State, taken: Taken, key: UnitKey, lack: Lack, now: float) -> bool:
    """Return True if room may become free: a unit is closing, or one that may be closed is only busy or lingers."""
    if any(w.phase is Phase.CLOSING for w in state.live_workers.values()):
        return True

    def frees_later(other: UnitKey) -> bool:
        unit = state.units[other]
        if other == key:
            return False
        if unit.phase is Phase.CLOSING:
            return True
        if _stays_loaded(state, other) and not shares_group(state, other, lack):
            return False
        opens = unit.phase is not Phase.READY
        return opens or bool(unit.leases) or awaited(state, other) or _lingers(state, key, other, now)

    return any(map(frees_later, taken.units))


def _does_not_fit(state: State, taken: Taken, key: UnitKey, lack: Lack) -> MullamaError:
    if lack.groups and not lack.places:
        bound = next(iter(lack.groups.values()))
        return Refused(
            f"the group {bound.name} loads {bound.most} of its models at a time, and those that are loaded stay",
            hint=f"give the model a higher residency.priority, or raise groups.{bound.name}.max",
        )
    need, others, rules = taken.need(key), taken.beside(key), state.rules
    place = min(lack.places - {"*", ""}, default="")
    if place:
        counts, where = (need.places[place], others.places[place], rules.places[place]), f" on {place}"
        hint = "use a smaller context.size, fewer gpu.layers, or a larger hardware.budget.gpu"
    else:
        counts, where = (need.total, others.total, rules.budget or 0), ""
        hint = "use a smaller context.size, a smaller file, or a larger hardware.budget.ram"
    wanted, in_use, budget = (size(count, digits=2) for count in counts)
    return Refused(f"not enough memory{where}: {wanted} needed, {in_use} of {budget} in use", hint=hint)
