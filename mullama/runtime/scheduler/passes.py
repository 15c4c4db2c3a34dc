"""The passes that follow every event; the package's docstring has their order, and `eviction` has two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mullama.errors import MullamaError, TimedOut, Unavailable
from mullama.runtime.scheduler.events import (
    ALONE_SECONDS,
    FOREVER,
    Cancel,
    CloseUnit,
    Command,
    Grant,
    OpenUnit,
    Refuse,
    StartWorker,
    StopWorker,
    UnitKey,
    WakeAt,
)
from mullama.runtime.scheduler.eviction import LEAST_IDLE, LEAST_STAY
from mullama.runtime.scheduler.room import Lack, Taken, frees
from mullama.runtime.scheduler.state import Phase, State
from mullama.runtime.scheduler.waiting import QueuedRequest
from mullama.runtime.scheduler.wants import awaited, is_asked, only_room, rank, unit_ttl, wanted

RETRY_LOAD = 10.0  # seconds after which a client may ask again for a model that loads
_ROUNDING = 0.01  # seconds; sums and differences of the same times differ by rounding


def expire(state: State, now: float) -> Iterator[Command]:
    """Refuse requests that wait too long or for a removed model; cancel those past their unit's drain deadline."""
    for model in tuple(state.waiting.models):
        if model not in state.models:
            for w in tuple(state.waiting.of(model)):
                state.waiting.remove(w.id)
                yield Refuse(id=w.id, error=Unavailable(f"{model} was removed from the manifest"))
            continue
        state.waiting.note_load(model, now, loads=_loads(state, model))
        if _deadline(state, state.waiting.oldest(model)) <= now:
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
    """Return when a queued request is refused: later while its model loads or is replaced.

    A load that took longer than `queue_timeout` leaves the requests that waited for it their time in the queue.
    """
    serve = state.models[waiting.model]
    if _loads(state, waiting.model):
        return waiting.since + max(serve.queue_timeout, serve.load_timeout)
    return waiting.since + waiting.loading + serve.queue_timeout


def _loads(state: State, model: str) -> bool:
    key = state.models[model].unit
    opening = Phase.OPENING
    opens = state.units[key].phase is opening or state.workers[key.weights].phase is opening
    return opens or model in state.paused


def _too_late(state: State, waiting: QueuedRequest) -> MullamaError:
    serve = state.models[waiting.model]
    worker = state.workers.get(serve.unit.weights)
    if worker and worker.error:
        return worker.error
    if _loads(state, waiting.model):
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


def close(state: State, now: float) -> Iterator[Command]:
    """Close idle units that are not wanted, stop workers without units, and drop the entries of unused ones."""
    for key, unit in list(state.units.items()):
        idle = not unit.leases and unit.phase is Phase.READY
        if idle and not wanted(state, key, now):
            unit.phase = Phase.CLOSING
            yield CloseUnit(unit=key)
        unit.starts = unit.starts and wanted(state, key, now)
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
                state.units[key].phase, state.units[key].starts = Phase.COLD, False
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
            if only_room(state, key):
                unit.displaced = True
            elif lack and is_asked(state, key):
                before.add(lack)
                if "*" in lack.places and awaited(state, key):  # every unit needs it, and later requests come after it
                    state.crowd = rank(state, key)
        elif worker.phase is Phase.COLD:
            taken.opened(key)
            worker.phase, unit.starts, unit.displaced = Phase.OPENING, True, False
            yield StartWorker(weights=key.weights)
        elif worker.phase is Phase.READY:
            taken.opened(key)
            unit.phase, unit.starts, unit.displaced = Phase.OPENING, False, False
            yield OpenUnit(unit=key)


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
            state.waiting.note_load(name, now, loads=_loads(state, name))
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
    for name in state.waiting.models:
        state.waiting.note_load(name, now, loads=_loads(state, name))
    moments = [_deadline(state, state.waiting.oldest(name)) for name in state.waiting.models]
    moments += [w.retry_at for w in state.workers.values() if w.phase is Phase.COLD and w.retry_at > now]
    moments += [until for until in state.alone_until.values() if until > now]
    asked = [state.units[state.models[name].unit] for name in state.waiting.models]
    asked += [unit for unit in state.units.values() if unit.pinned]
    asked_cold = any(unit.phase is Phase.COLD for unit in asked)
    for key, unit in state.units.items():
        if unit.leases:
            moments.append(unit.drain_until)
        elif unit.phase is Phase.READY:
            moments.append(unit.last_used + unit_ttl(state, key))
        if asked_cold and unit.phase is Phase.READY:  # it may have to make room then
            moments += [m for m in (unit.opened_at + LEAST_STAY, unit.last_used + LEAST_IDLE) if m > now]
    # A unit that is open past its deadline is wanted for another reason, so time alone does not close it.
    if (soonest := min((m for m in moments if m > now - _ROUNDING), default=FOREVER)) < FOREVER:
        soonest = max(soonest, now + 0.001)
        yield WakeAt(when=soonest)
    state.due = soonest
