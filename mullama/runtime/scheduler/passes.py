"""The seven passes that follow every event; the package's docstring has their order and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mullama.errors import MullamaError, Refused, TimedOut, Unavailable
from mullama.runtime.scheduler.events import (
    ALONE_SECONDS,
    FOREVER,
    Cancel,
    CloseUnit,
    Command,
    Evicted,
    Grant,
    OpenUnit,
    Refuse,
    StartWorker,
    StopWorker,
    UnitKey,
    WakeAt,
)
from mullama.runtime.scheduler.room import Lack, Taken, bounds_of, frees, short, used
from mullama.runtime.scheduler.state import Phase, State, unit_failed
from mullama.runtime.scheduler.waiting import QueuedRequest
from mullama.units import size

LEAST_STAY = 10.0
"""Seconds for which a unit that requests use stays open before it makes room for one of the same rank."""
LEAST_IDLE = 1.0
"""Seconds for which a unit must be idle to make room sooner, once it was closed for another one and opened again."""
THRASHING = 60.0
"""Seconds after such a close in which it counts."""
RETRY_LOAD = 10.0  # seconds after which a client may ask again for a model that loads
_ROUNDING = 0.01  # seconds; sums and differences of the same times differ by rounding


def expire(state: State, now: float) -> Iterator[Command]:
    """Refuse requests that wait too long or for a removed model; cancel those past their unit's drain deadline."""
    for model in tuple(state.waiting.models):
        if model not in state.models:
            for w in tuple(state.waiting.of(model)):
                state.waiting.remove(w.id)
                yield Refuse(id=w.id, error=Unavailable(f"{model} was removed from the manifest"))
        elif _deadline(state, state.waiting.oldest(model)) <= now:
            late = [w for w in state.waiting.of(model) if _deadline(state, w) <= now]
            for w in late:
                state.waiting.remove(w.id)
                yield Refuse(id=w.id, error=_too_late(state, w))
    for unit in state.units.values():
        if unit.drain_until <= now:
            unit.drain_until = FOREVER
            for id in sorted(unit.leases):
                yield Cancel(id=id)


def _deadline(state: State, waiting: QueuedRequest) -> float:
    """Return when a queued request is refused: later while its model loads or is replaced."""
    serve = state.models[waiting.model]
    if _loads(state, waiting):
        return waiting.since + max(serve.queue_timeout, serve.load_timeout)
    return waiting.since + serve.queue_timeout


def _loads(state: State, waiting: QueuedRequest) -> bool:
    key = state.models[waiting.model].unit
    opening = Phase.OPENING
    opens = state.units[key].phase is opening or state.workers[key.weights].phase is opening
    return opens or waiting.model in state.paused


def _too_late(state: State, waiting: QueuedRequest) -> MullamaError:
    serve = state.models[waiting.model]
    worker = state.workers.get(serve.unit.weights)
    if worker and worker.error:
        return worker.error
    if _loads(state, waiting):
        seconds = max(serve.queue_timeout, serve.load_timeout)
        return Unavailable(
            f"{waiting.model} is still loading; the request waited {seconds:g} s for it",
            hint="send it again later; mullama status shows the progress, and limits.timeout bounds the wait",
            retry_after=RETRY_LOAD,
        )
    return TimedOut(
        f"the request to {waiting.model} waited longer than {serve.queue_timeout:g} s",
        hint="try again later, or raise server.limits.queue_timeout",
    )


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


def close(state: State, now: float) -> Iterator[Command]:
    """Close idle units that are not wanted, stop workers without units, and drop the entries of unused ones."""
    for key, unit in list(state.units.items()):
        idle = not unit.leases and unit.phase is Phase.READY
        if idle and not wanted(state, key, now):
            unit.phase = Phase.CLOSING
            yield CloseUnit(unit=key)
        if unit.phase is Phase.COLD and not unit.leases and _unused(state, key):
            del state.units[key]
    keys: dict[str, list[UnitKey]] = {}
    for key in state.units:
        keys.setdefault(key.weights, []).append(key)
    for weights, worker in list(state.workers.items()):
        units = keys.get(weights, [])
        if worker.phase is Phase.COLD:
            if not units:
                del state.workers[weights]
            continue
        needed = any(_needs_worker(state, k, now) for k in units)
        abandoned = worker.phase is Phase.OPENING and all(_abandoned(state, k, now) for k in units)
        if (worker.phase is Phase.READY and not needed) or abandoned or _opens_in_vain(state, units, now):
            worker.phase = Phase.CLOSING
            for key in units:
                state.units[key].phase = Phase.COLD
            yield StopWorker(weights=weights)


def _needs_worker(state: State, key: UnitKey, now: float) -> bool:
    """Return True for a unit that is open or wanted; one that made room needs no worker until its turn comes."""
    unit = state.units[key]
    return unit.phase is not Phase.COLD or (not unit.displaced and wanted(state, key, now))


def _abandoned(state: State, key: UnitKey, now: float) -> bool:
    """Return True for a unit whose load ends: no model leads to it any more, or a client unloaded it.

    A load whose last request left continues: the client will ask again.
    """
    return not wanted(state, key, now) and (_unused(state, key) or state.units[key].unloaded)


def _opens_in_vain(state: State, keys: list[UnitKey], now: float) -> bool:
    """Return True for a worker that opens an abandoned unit and serves no other one."""
    units = {key: state.units[key] for key in keys if state.units[key].phase is not Phase.COLD}
    opening = any(unit.phase is Phase.OPENING for unit in units.values())
    return opening and all(u.phase is Phase.OPENING and _abandoned(state, k, now) for k, u in units.items())


def _unused(state: State, key: UnitKey) -> bool:
    return not state.units[key].pinned and key not in state.users


def open_wanted(state: State, order: list[UnitKey], now: float) -> Iterator[Command]:
    """Open wanted units that fit in memory and in their groups, or start their workers.

    A unit takes nothing that one before it lacks; else many small units would keep a large one waiting for ever.
    """
    state.crowd = None
    if not order:  # usual at the end of a request
        return
    taken, before = Taken(state), Lack()
    for key in order:
        worker, unit = state.workers[key.weights], state.units[key]
        crowded = state.crowd is not None and not unit.starts
        if crowded or worker.permanently_failed or worker.retry_at > now:
            continue
        lack = taken.lack(key)
        if lack or (before and not unit.starts and frees(state, key, before)):
            if _only_room(state, key):
                unit.displaced = True
            elif lack and _is_asked(state, key):
                before.add(lack)
                if "*" in lack.places:  # every unit needs it
                    state.crowd = rank(state, key)
        elif worker.phase is Phase.COLD:
            taken.opened(key)
            worker.phase, unit.starts, unit.displaced = Phase.OPENING, True, False
            yield StartWorker(weights=key.weights)
        elif worker.phase is Phase.READY:
            taken.opened(key)
            unit.phase, unit.starts, unit.displaced = Phase.OPENING, False, False
            yield OpenUnit(unit=key)


def wanted_cold(state: State, now: float) -> list[UnitKey]:
    """Return wanted units that are closed: highest rank first, then those that a request waits for, longest first,
    then largest first, which fragments memory less. Those that are wanted only where there is room are last.
    """
    if state.stopping:
        return []
    since: dict[UnitKey, float] = {}
    for name in state.waiting.models:
        if (serve := state.models.get(name)) is not None and name not in state.paused:
            since[serve.unit] = min(since.get(serve.unit, FOREVER), state.waiting.oldest(name).since)
    pinned = (key for key, unit in state.units.items() if unit.pinned)
    possible = dict.fromkeys((*since, *state.residents, *pinned))
    cold = (key for key in possible if key in state.units and state.units[key].phase is Phase.COLD)

    def order(key: UnitKey) -> tuple[bool, int, float, int]:
        asked = since.get(key, FOREVER)
        last = asked == FOREVER and _only_room(state, key)
        return last, -rank(state, key), asked, -state.workers[key.weights].bytes

    return sorted((key for key in cold if key in since or wanted(state, key, now)), key=order)


def _is_asked(state: State, key: UnitKey) -> bool:
    """Return True for a unit that a request or the reconciler waits for."""
    return state.units[key].pinned or _awaited(state, key)


def _only_room(state: State, key: UnitKey) -> bool:
    """Return True for a unit that nothing needs: it is open where there is room, and closed first."""
    users, unit = state.users.get(key, ()), state.units[key]
    resident = any(s.when_room for s in users) and not any(s.at_start for s in users)
    return resident and not unit.pinned and not unit.leases and not _awaited(state, key)


def rank(state: State, key: UnitKey) -> int:
    """Return the highest priority of the models of a unit."""
    return state.ranks.get(key, 0)


def evict(state: State, order: list[UnitKey], now: float) -> Iterator[Command]:
    """1. fits: nothing  2. close an idle unit of lower rank  3. let busy ones yield  4. wait  5. otherwise refuse."""
    for unit in state.units.values():
        unit.yielding = False
    if not order:  # usual at the end of a request
        return
    taken, room, before = Taken(state), Taken(state), Lack()
    room.end_closing()
    for key in order:
        if "*" in before.places:
            return  # every other one waits for the memory of all devices, too
        worker, unit = state.workers[key.weights], state.units[key]
        if unit.phase is not Phase.COLD or worker.permanently_failed or worker.retry_at > now:
            continue
        lack = taken.lack(key)
        if not lack or _only_room(state, key) or (before and frees(state, key, before)):
            continue  # it fits, displaces nothing, or has its turn after an earlier one
        if _is_asked(state, key):
            before.add(lack)
        if not room.lack(key):
            continue  # the units that are being closed make the room
        useful = [k for k in _replaceable(state, taken.units, key, lack) if frees(state, k, lack)]
        idle = [k for k in useful if _is_idle(state, k) and not _lingers(state, key, k, now)]
        if closes := room.closes_for(key, idle):
            room.closed(closes[0])
            yield from _evict(state, closes[0], f"to make room for {_names(state, key)}", now)
            continue
        # The order depends on nothing that a request changes: else two units could take turns at being busy for ever.
        turn_over = [k for k in useful if k in idle or now - state.units[k].opened_at >= LEAST_STAY]
        turn_over.sort(key=lambda k: (rank(state, k), state.units[k].opened_at))
        if _is_asked(state, key) and (closes := room.closes_for(key, turn_over)):
            for victim in closes:
                state.units[victim].yielding = True
            if not any(state.units[victim].leases for victim in closes):
                room.closed(closes[0])
                yield from _evict(state, closes[0], f"to make room for {_names(state, key)}", now)
        elif not _may_free(state, taken, key, lack, now):
            unit.no_room = True
            yield from unit_failed(state, key, _does_not_fit(state, taken, key, lack))


def shrink(state: State, now: float) -> Iterator[Command]:
    """Close idle units on demand, one after the other, while more is in memory than a lowered budget allows."""
    if not over_budget(state):
        return
    lack = Lack(places=set(short(state, Taken(state).memory)))
    idle = (k for k in state.units if _is_idle(state, k))
    victims = [k for k in idle if not _stays_loaded(state, k) and frees(state, k, lack)]
    if victims:
        least = min(victims, key=lambda k: _least_wanted(state, k))
        yield from _evict(state, least, "because the budget was lowered", now)


def over_budget(state: State) -> bool:
    """Return True when more is in memory than the budget allows, and nothing is being closed."""
    workers = any(w.phase is Phase.CLOSING for w in state.workers.values())
    closing = workers or any(u.phase is Phase.CLOSING for u in state.units.values())
    if closing:
        return False
    if not state.rules.places:  # usual, and looked at after every event
        return state.rules.budget is not None and used(state) > state.rules.budget
    return bool(short(state, Taken(state).memory))


def _evict(state: State, key: UnitKey, reason: str, now: float) -> Iterator[Command]:
    unit = state.units[key]
    unit.phase, unit.replaced_at, unit.displaced = Phase.CLOSING, now, True
    if not any(s.when_room for s in state.users.get(key, ())):
        # With a time to live of 0 it stays closed until a request, even if it loads at start. Otherwise two units
        # would evict each other for ever.
        unit.ttl_override = 0.0
    yield CloseUnit(unit=key)
    yield Evicted(models=_names(state, key), reason=reason)


def _names(state: State, key: UnitKey) -> str:
    return ", ".join(sorted(s.name for s in state.users.get(key, ()))) or "a replaced model"


def _replaceable(state: State, units: list[UnitKey], key: UnitKey, lack: Lack) -> list[UnitKey]:
    """Return those of the units that may be closed for this one once they are idle, the least wanted first.

    A unit of a lower rank may be, and one of the same rank that does not stay loaded or that is in the same group.
    """
    least = rank(state, key)

    def may_be_closed(other: UnitKey) -> bool:
        unit = state.units[other]
        if other == key or unit.phase is not Phase.READY or unit.pinned:
            return False
        if _only_room(state, other) or (own := rank(state, other)) < least:
            return True
        return own == least and (_shares_group(state, other, lack) or not _stays_loaded(state, other))

    return sorted(filter(may_be_closed, units), key=lambda k: _least_wanted(state, k))


def _shares_group(state: State, key: UnitKey, lack: Lack) -> bool:
    return bool(lack.groups) and not lack.groups.keys().isdisjoint(bounds_of(state, key))


def _lingers(state: State, key: UnitKey, victim: UnitKey, now: float) -> bool:
    """Return True for an idle unit that stays for a moment longer, so that two units do not replace each other all the
    time: one of the same rank that was closed for another one and opened again a short time ago.
    """
    unit = state.units[victim]
    if _only_room(state, victim) or rank(state, victim) < rank(state, key) or now - unit.replaced_at >= THRASHING:
        return False
    return now - unit.opened_at < LEAST_STAY and now - unit.last_used < LEAST_IDLE


def _is_idle(state: State, key: UnitKey) -> bool:
    """Return True for an open unit that nothing uses, pins or waits for."""
    unit = state.units[key]
    return unit.phase is Phase.READY and not unit.leases and not unit.pinned and not _awaited(state, key)


def _least_wanted(state: State, key: UnitKey) -> tuple[bool, int, float]:
    """Return the key by which the least wanted unit is first: not needed, lowest rank, then least recently used."""
    return not _only_room(state, key), rank(state, key), state.units[key].last_used


def _awaited(state: State, key: UnitKey) -> bool:
    """Return True if a request waits for the unit."""
    return any(state.waiting.of(s.name) for s in state.users.get(key, ()))


def _stays_loaded(state: State, key: UnitKey) -> bool:
    """Return True for a unit that loads at start and has no time to live."""
    return any(s.at_start and s.ttl == FOREVER for s in state.users.get(key, ()))


def _may_free(state: State, taken: Taken, key: UnitKey, lack: Lack, now: float) -> bool:
    """Return True if room may become free: a unit is closing, or one that may be closed is only busy or lingers."""
    if any(w.phase is Phase.CLOSING for w in state.workers.values()):
        return True

    def frees_later(other: UnitKey) -> bool:
        unit = state.units[other]
        if other == key:
            return False
        if unit.phase is Phase.CLOSING:
            return True
        if _stays_loaded(state, other) and not _shares_group(state, other, lack):
            return False
        opens = unit.phase is not Phase.READY
        return opens or bool(unit.leases) or _awaited(state, other) or _lingers(state, key, other, now)

    return any(map(frees_later, taken.units))


def _does_not_fit(state: State, taken: Taken, key: UnitKey, lack: Lack) -> MullamaError:
    if lack.groups and not lack.places:
        bound = next(iter(lack.groups.values()))
        return Refused(
            f"the group {bound.name} loads {bound.most} of its models at a time, and those that are loaded stay",
            hint=f"give the model a higher residency.priority, or raise groups.{bound.name}.max",
        )
    need, rules = taken.need(key), state.rules
    place = min(lack.places - {"*", ""}, default="")
    if place:
        counts, where = (need.places[place], taken.memory.places[place], rules.places[place]), f" on {place}"
        hint = "use a smaller context.size, fewer gpu.layers, or a larger hardware.budget.gpu"
    else:
        counts, where = (need.total, taken.memory.total, rules.budget or 0), ""
        hint = "use a smaller context.size, a smaller file, or a larger hardware.budget.ram"
    wanted, in_use, budget = (size(count, digits=2) for count in counts)
    return Refused(f"not enough memory{where}: {wanted} needed, {in_use} of {budget} in use", hint=hint)


def grant(state: State, now: float) -> Iterator[Command]:
    """Give places to waiting requests: higher priority first, then first come, first served.

    A request that must run alone waits until its worker is free, and later ones wait behind it.
    """
    if state.waiting.alone:
        yield from _grant_in_order(state, now)
        return
    held = {unit.weights for _, unit in state.running.values() if state.alone(unit.weights, now)}
    yield from _grant_of(state, list(state.waiting.models), held, now)


def _grant_of(state: State, names: list[str], held: set[str], now: float) -> Iterator[Command]:
    """Give places to the requests of these models. held: weights whose worker serves a request that runs alone."""
    heads: dict[str, QueuedRequest] = {}
    for name in names:
        if (first := _next_of(state, name, held)) is not None:
            heads[name] = first
    while heads and len(state.running) < state.rules.concurrency:
        name = min(heads, key=lambda n: (-heads[n].priority, heads[n].order))
        yield _granted(state, heads[name], now)
        following = _next_of(state, name, held)
        if following is None:
            del heads[name]
        else:
            heads[name] = following


def grant_now(state: State, names: Iterable[str], now: float) -> Iterator[Command]:
    """Give places to requests of these models, and ask for a tick at the deadline of the last one that waits."""
    yield from _grant_of(state, [name for name in names if state.waiting.of(name)], set(), now)
    for name in names:
        if queue := state.waiting.of(name):
            when = _deadline(state, state.waiting.oldest(name))
            if queue and now < when < state.due:
                state.due = when
                yield WakeAt(when=when)


def _next_of(state: State, name: str, held: set[str]) -> QueuedRequest | None:
    """Return the next request of a model that has a free place; None without a place or a request."""
    serve = state.models[name]
    unit = state.units[serve.unit]
    if unit.phase is not Phase.READY or unit.yielding or serve.unit.weights in held or name in state.paused:
        return None
    if state.taken(serve) >= serve.parallel:
        return None
    return min(state.waiting.of(name), key=lambda w: (-w.priority, w.order), default=None)


def _granted(state: State, waiting: QueuedRequest, now: float) -> Grant:
    serve = state.models[waiting.model]
    state.waiting.remove(waiting.id)
    state.start(waiting.id, waiting.model, serve.unit)
    unit = state.units[serve.unit]
    unit.leases.add(waiting.id)
    unit.last_used = now
    return Grant(id=waiting.id, unit=serve.unit)


def _grant_in_order(state: State, now: float) -> Iterator[Command]:
    """Look at all waiting requests in order. `sorted` is stable, so equal priorities keep their order of arrival."""
    held = {unit.weights for _, unit in state.running.values() if state.alone(unit.weights, now)}
    for waiting in sorted(state.waiting, key=lambda w: -w.priority):
        if len(state.running) >= state.rules.concurrency:
            return
        serve = state.models[waiting.model]
        unit, weights = state.units[serve.unit], serve.unit.weights
        ready = unit.phase is Phase.READY and not unit.yielding
        ready = ready and waiting.model not in state.paused and weights not in held
        if waiting.alone and ready:
            held.add(weights)
            ready = not any(other.weights == weights for _, other in state.running.values())
            if ready:
                state.alone_until[waiting.id] = now + ALONE_SECONDS
        if ready and state.taken(serve) < serve.parallel:
            yield _granted(state, waiting, now)


def wake(state: State, now: float) -> Iterator[Command]:
    """Ask for a tick at the next deadline."""
    moments = [_deadline(state, state.waiting.oldest(name)) for name in state.waiting.models]
    moments += [w.retry_at for w in state.workers.values() if w.phase is Phase.COLD and w.retry_at > now]
    moments += [until for until in state.alone_until.values() if until > now]
    awaited_cold = any(state.units[state.models[name].unit].phase is Phase.COLD for name in state.waiting.models)
    for key, unit in state.units.items():
        if unit.leases:
            moments.append(unit.drain_until)
        elif unit.phase is Phase.READY:
            moments.append(unit.last_used + unit_ttl(state, key))
        if awaited_cold and unit.phase is Phase.READY:  # it may have to make room then
            moments += [m for m in (unit.opened_at + LEAST_STAY, unit.last_used + LEAST_IDLE) if m > now]
    # A unit that is open past its deadline is wanted for another reason, so time alone does not close it.
    if (soonest := min((m for m in moments if m > now - _ROUNDING), default=FOREVER)) < FOREVER:
        soonest = max(soonest, now + 0.001)
        yield WakeAt(when=soonest)
    state.due = soonest
