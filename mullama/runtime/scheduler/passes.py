"""The passes that follow every event; the package's docstring has their order, and `eviction` has two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
from mullama.runtime.scheduler.heads import deadline, first_deadline, loads
from mullama.runtime.scheduler.room import Lack, Taken, frees
from mullama.runtime.scheduler.state import Asked, Phase, State
from mullama.runtime.scheduler.waiting import QueuedRequest
from mullama.runtime.scheduler.wants import awaited, is_asked, only_room, rank, unit_ttl, wanted

RETRY_LOAD = 10.0  # seconds after which a client may ask again for a model that loads
_ROUNDING = 0.01  # seconds; sums and differences of the same times differ by rounding


def expire(state: State, now: float) -> Iterator[Command]:
    """Refuse requests that wait too long or for a removed model; cancel those past their unit's drain deadline."""
    _note_loads(state, now)
    yield from _expire_waiting(state, now)
    for key in tuple(state.draining):
        unit = state.units.get(key)
        if unit is None or unit.drain_until == FOREVER:
            del state.draining[key]
        elif unit.drain_until <= now:
            unit.drain_until = FOREVER
            for id in sorted(unit.leases):
                yield Cancel(id=id)


def _note_loads(state: State, now: float) -> None:
    """Note the models that began or ended to load, or to be replaced, while requests wait for them."""
    opening = Phase.OPENING
    units = [key for key, unit in state.live_units.items() if unit.phase is opening]
    units += [k for w, s in state.live_workers.items() if s.phase is opening for k in state.units_of.get(w, ())]
    for name in (*state.waiting.loading, *state.paused, *(s.name for key in units for s in state.users.get(key, ()))):
        if state.waiting.of(name) and name in state.models:
            state.waiting.note_load(name, now, loads=loads(state, name))


def _expire_waiting(state: State, now: float) -> Iterator[Command]:
    for model in sorted(state.waiting.changed - state.models.keys()):
        for w in tuple(state.waiting.of(model)):
            state.waiting.remove(w.id)
            yield Refuse(id=w.id, error=Unavailable(f"{model} was removed from the manifest"))
    while first_deadline(state) <= now:
        model = state.deadlines[0][2]
        for w in [w for w in state.waiting.of(model) if deadline(state, w) <= now]:
            state.waiting.remove(w.id)
            yield Refuse(id=w.id, error=_too_late(state, w))


def _too_late(state: State, waiting: QueuedRequest) -> MullamaError:
    serve = state.models[waiting.model]
    worker = state.workers.get(serve.unit.weights)
    if worker and (error := worker.error):
        # No failure of a worker that had the request, which would be sent once more and wait as long again.
        text = f"model '{waiting.model}' cannot be served: {error.message}"
        wait = error.retry_after if isinstance(error, Unavailable) else None
        return Unavailable(text, hint=error.hint, retry_after=wait or RETRY_LOAD)
    if loads(state, waiting.model):
        seconds = deadline(state, waiting) - waiting.since
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
    for key, unit in tuple(state.live_units.items()):
        if unit.phase is Phase.READY and not unit.leases and not wanted(state, key, now):
            state.set_unit(key, Phase.CLOSING)
            yield CloseUnit(unit=key)
    _drop_unused(state)
    for key in state.starting():
        state.units[key].starts = wanted(state, key, now)
    for weights, worker in tuple(state.live_workers.items()):
        units = [*state.units_of.get(weights, ())]
        needed = any(_needs_worker(state, k, now) for k in units)
        abandoned = worker.phase is Phase.OPENING and all(_abandoned(state, k, now) for k in units)
        if (worker.phase is Phase.READY and not needed) or abandoned or _opens_in_vain(state, units, now):
            state.set_worker(weights, Phase.CLOSING)
            for key in units:
                state.set_unit(key, Phase.COLD)
                state.units[key].starts = False
            yield StopWorker(weights=weights)


def _drop_unused(state: State) -> None:
    """Drop closed units to which nothing leads, and stopped workers without units."""
    for key in tuple(state.orphans):
        unit = state.units[key]
        if unit.phase is Phase.COLD and not unit.leases and _unused(state, key):
            del state.units[key], state.units_of[key.weights][key]
            del state.orphans[key]
            if not state.units_of[key.weights]:
                del state.units_of[key.weights]
                state.stopped[key.weights] = None
    for weights in tuple(state.stopped):
        worker = state.workers.get(weights)
        if worker is None or worker.phase is not Phase.COLD:
            del state.stopped[weights]
        elif weights not in state.units_of:
            del state.stopped[weights]
            del state.workers[weights]


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


def open_wanted(state: State, order: Sequence[Asked], now: float) -> Iterator[Command]:
    """Open wanted units that fit in memory and in their groups, or start their workers.

    A unit takes nothing that one before it lacks; else many small units would keep a large one waiting for ever.
    """
    taken, before = Taken(state), Lack()
    starting = set(state.starting())
    left = len(starting)
    for key, unit, worker in (asked.target[:3] for asked in order):
        if state.crowd is not None and not left:
            return  # the others wait for the memory of all devices, too
        starts = unit.starts and key in starting
        left -= starts
        if state.crowd is not None and not starts:
            continue
        if worker.permanently_failed or worker.retry_at > now:
            continue
        lack = taken.lack(key)
        if lack or (before and not starts and frees(state, key, before)):
            if only_room(state, key):
                unit.displaced = True
            elif lack and is_asked(state, key):
                before.add(lack)
                if "*" in lack.places and awaited(state, key):  # every unit needs it, and later requests come after it
                    state.crowd = rank(state, key)
        elif worker.phase is Phase.COLD:
            taken.opened(key)
            state.set_worker(key.weights, Phase.OPENING)
            unit.starts, unit.displaced = True, False
            yield StartWorker(weights=key.weights)
        elif worker.phase is Phase.READY:
            taken.opened(key)
            state.set_unit(key, Phase.OPENING)
            unit.starts, unit.displaced = False, False
            yield OpenUnit(unit=key)


def grant(state: State, now: float) -> Iterator[Command]:
    """Give places to waiting requests: higher priority first, then first come, first served.

    A request that must run alone waits until its worker is free, and later ones wait behind it.
    """
    if state.waiting.alone:
        yield from _grant_in_order(state, now)
        return
    if not state.waiting or len(state.running) >= state.rules.concurrency:
        return
    held = _held(state, now)
    ready = (key for key, unit in state.live_units.items() if unit.phase is Phase.READY and not unit.yielding)
    names = [s.name for key in ready for s in state.users.get(key, ()) if state.waiting.of(s.name)]
    yield from _grant_of(state, names, held, now)


def _held(state: State, now: float) -> set[str]:
    """Return the weights whose worker serves a request that runs alone."""
    if not state.alone_until:
        return set()
    return {unit.weights for _, unit in state.running.values() if state.alone(unit.weights, now)}


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
        if state.waiting.of(name):
            state.waiting.note_load(name, now, loads=loads(state, name))
            when = deadline(state, state.waiting.oldest(name))
            if now < when < state.due:
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
    held = _held(state, now)
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
    _note_loads(state, now)
    moments = [first_deadline(state)]
    resting = (worker for weights in state.stopped if (worker := state.workers.get(weights)) is not None)
    moments += [w.retry_at for w in resting if w.phase is Phase.COLD and w.retry_at > now]
    moments += [until for until in state.alone_until.values() if until > now]
    targets = state.targets
    asked_cold = any(targets[name].unit.phase is Phase.COLD for name in state.waiting.models) or any(
        unit.pinned and unit.phase is Phase.COLD for key in state.pins if (unit := state.units.get(key)) is not None
    )
    for key, unit in state.live_units.items():
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
