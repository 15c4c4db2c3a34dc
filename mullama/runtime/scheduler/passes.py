"""The seven passes that follow every event; the package's docstring has their order and meaning."""

from __future__ import annotations

from collections import Counter
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
from mullama.runtime.scheduler.state import Phase, QueuedRequest, State, Unit, WorkerState, unit_failed
from mullama.struct import Struct
from mullama.units import size

RETRY_LOAD = 10.0  # seconds after which a client may ask again for a model that loads
_ROUNDING = 0.01  # seconds; sums and differences of the same times differ by rounding


class Amounts(Struct, frozen=True):
    """Bytes on each device, and in main memory by the name ""."""

    places: Counter[str]

    @classmethod
    def of(cls, parts: Iterable[WorkerState | Unit]) -> Amounts:
        places: Counter[str] = Counter()
        for part in parts:
            places.update(part.on)
            places[""] += part.bytes - sum(part.on.values())
        return cls(places)

    @property
    def total(self) -> int:
        return sum(self.places.values())

    def __add__(self, other: Amounts) -> Amounts:
        places = Counter(self.places)
        places.update(other.places)
        return Amounts(places)

    def __sub__(self, other: Amounts) -> Amounts:
        places = Counter(self.places)
        places.subtract(other.places)
        return Amounts(places)


def expire(state: State, now: float) -> Iterator[Command]:
    """Refuse requests that wait too long or for a removed model; cancel those past their unit's drain deadline."""
    gone = [w for w in state.waiting if w.model not in state.models]
    late = [w for w in state.waiting if w not in gone and _deadline(state, w) <= now]
    state.waiting = [w for w in state.waiting if w not in gone and w not in late]
    for w in gone:
        yield Refuse(id=w.id, error=Unavailable(f"{w.model} was removed from the manifest"))
    for w in late:
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
    opening = Phase.OPENING in (state.workers[key.weights].phase, state.units[key].phase)
    return opening or waiting.model in state.paused


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
    users = [s for s in state.models.values() if s.unit == key and s.name not in state.paused]
    if any(w.model == s.name for w in state.waiting for s in users):
        return True
    if (unit.error is not None and not unit.no_room) or not users:
        return False
    if unit.ttl_override is not None:
        return unit.phase is not Phase.COLD and now - unit.last_used < unit.ttl_override
    return any(
        (s.at_start and s.name not in unit.asked_ttl and (s.ttl == FOREVER or unit.last_used == 0.0))
        or (unit.phase is not Phase.COLD and now - unit.last_used < unit.asked_ttl.get(s.name, s.ttl))
        for s in users
    )


def unit_ttl(state: State, key: UnitKey) -> float:
    """Return the seconds without a request after which the unit is closed: the longest that one of its models has."""
    unit = state.units[key]
    if unit.ttl_override is not None:
        return unit.ttl_override
    return max((unit.asked_ttl.get(s.name, s.ttl) for s in state.models.values() if s.unit == key), default=FOREVER)


def close(state: State, now: float) -> Iterator[Command]:
    """Close idle units that are not wanted, stop workers without units, and drop the entries of unused ones."""
    for key, unit in list(state.units.items()):
        idle = not unit.leases and unit.phase is Phase.READY
        if idle and not wanted(state, key, now):
            unit.phase = Phase.CLOSING
            yield CloseUnit(unit=key)
        if unit.phase is Phase.COLD and not unit.leases and _unused(state, key):
            del state.units[key]
    for weights, worker in list(state.workers.items()):
        units = [u for k, u in state.units.items() if k.weights == weights]
        needed = any(
            u.phase is not Phase.COLD or wanted(state, k, now) for k, u in state.units.items() if k.weights == weights
        )
        abandoned = worker.phase is Phase.OPENING and all(_abandoned(state, k, now) for k in _keys(state, weights))
        if (worker.phase is Phase.READY and not needed) or abandoned or _opens_in_vain(state, weights, now):
            worker.phase = Phase.CLOSING
            for key in _keys(state, weights):
                state.units[key].phase = Phase.COLD
            yield StopWorker(weights=weights)
        if worker.phase is Phase.COLD and not units:
            del state.workers[weights]


def _keys(state: State, weights: str) -> list[UnitKey]:
    return [key for key in state.units if key.weights == weights]


def _abandoned(state: State, key: UnitKey, now: float) -> bool:
    """Return True for a unit whose load ends: no model leads to it any more, or a client unloaded it.

    A load whose last request left continues: the client will ask again.
    """
    return not wanted(state, key, now) and (_unused(state, key) or state.units[key].unloaded)


def _opens_in_vain(state: State, weights: str, now: float) -> bool:
    """Return True for a worker that opens an abandoned unit and serves no other one."""
    units = {key: state.units[key] for key in _keys(state, weights) if state.units[key].phase is not Phase.COLD}
    opening = any(unit.phase is Phase.OPENING for unit in units.values())
    return opening and all(u.phase is Phase.OPENING and _abandoned(state, k, now) for k, u in units.items())


def _unused(state: State, key: UnitKey) -> bool:
    return not state.units[key].pinned and all(s.unit != key for s in state.models.values())


def open_wanted(state: State, now: float) -> Iterator[Command]:
    """Open wanted units that fit in memory, or start their workers."""
    for key in _wanted_cold(state, now):
        worker = state.workers[key.weights]
        if worker.phase is Phase.COLD and not worker.permanently_failed and worker.retry_at <= now:
            if _fits(state, key):
                worker.phase = Phase.OPENING
                yield StartWorker(weights=key.weights)
        elif worker.phase is Phase.READY and _fits(state, key):
            state.units[key].phase = Phase.OPENING
            yield OpenUnit(unit=key)


def _wanted_cold(state: State, now: float) -> list[UnitKey]:
    """Return wanted units that are closed, highest rank first, then largest first, which fragments memory less."""
    cold = [k for k, u in state.units.items() if u.phase is Phase.COLD and wanted(state, k, now)]
    return sorted(cold, key=lambda k: (-_rank(state, k), -state.workers[k.weights].bytes))


def _rank(state: State, key: UnitKey) -> int:
    return max((s.priority for s in state.models.values() if s.unit == key), default=0)


def _need(state: State, key: UnitKey) -> Amounts:
    """Return the memory that opening the unit takes."""
    worker, unit = state.workers[key.weights], state.units[key]
    return Amounts.of([unit, worker] if worker.phase is Phase.COLD else [unit])


def used_amounts(state: State) -> Amounts:
    """Return the memory of all workers and units that are open, or are being opened or closed."""
    parts: list[WorkerState | Unit] = [w for w in state.workers.values() if w.phase is not Phase.COLD]
    return Amounts.of([*parts, *(u for u in state.units.values() if u.phase is not Phase.COLD)])


def used(state: State) -> int:
    """Return the bytes in use on all devices together."""
    workers = sum(w.bytes for w in state.workers.values() if w.phase is not Phase.COLD)
    return workers + sum(u.bytes for u in state.units.values() if u.phase is not Phase.COLD)


def _short(state: State, taken: Amounts) -> tuple[str, ...]:
    """Return the places whose bound this memory exceeds; "*" is the bound of all devices together."""
    rules = state.rules
    whole = ("*",) if rules.budget is not None and taken.total > rules.budget else ()
    return whole + tuple(place for place, bound in rules.places.items() if taken.places[place] > bound)


def _lacks(state: State, key: UnitKey, freed: Amounts | None = None) -> tuple[str, ...]:
    """Return the places whose bound opening the unit exceeds, once this memory is freed; see `_short`.

    A place that is short already, such as after a lowered budget, does not keep out a unit that needs none of it.
    """
    need, taken = _need(state, key), used_amounts(state)
    exceeded = _short(state, (taken - freed if freed else taken) + need)
    return tuple(place for place in exceeded if place == "*" or need.places[place] > 0)


def _fits(state: State, key: UnitKey) -> bool:
    return not _lacks(state, key)


def evict(state: State, now: float) -> Iterator[Command]:
    """1. fits: nothing  2. close an idle unit of lower rank  3. wait for busy units  4. otherwise refuse."""
    for key in _wanted_cold(state, now):
        worker = state.workers[key.weights]
        if _fits(state, key) or worker.permanently_failed or worker.retry_at > now:
            continue
        short = _lacks(state, key)
        victims = [victim for victim in _victims(state, key) if _frees(state, victim, short)]
        if victims and _enough(state, key, victims):
            victim = victims[0]
            yield from _evict(state, victim, f"to make room for {_names(state, key)}")
        elif not _may_free(state, key):
            state.units[key].no_room = True
            yield from unit_failed(state, key, _does_not_fit(state, key))


def shrink(state: State, now: float) -> Iterator[Command]:
    """Close idle units on demand, one after the other, while more is in memory than a lowered budget allows."""
    if not over_budget(state):
        return
    short = _short(state, used_amounts(state))
    victims = [k for k in _idle(state) if not _stays_loaded(state, k) and _frees(state, k, short)]
    if victims:
        yield from _evict(state, min(victims, key=lambda k: _least_wanted(state, k)), "because the budget was lowered")


def over_budget(state: State) -> bool:
    """Return True when more is in memory than the budget allows, and nothing is being closed."""
    workers = any(w.phase is Phase.CLOSING for w in state.workers.values())
    closing = workers or any(u.phase is Phase.CLOSING for u in state.units.values())
    if closing:
        return False
    if not state.rules.places:  # usual, and looked at after every event
        return state.rules.budget is not None and used(state) > state.rules.budget
    return bool(_short(state, used_amounts(state)))


def _evict(state: State, key: UnitKey, reason: str) -> Iterator[Command]:
    # With a time to live of 0 it stays closed until a request, even if it loads at start. Otherwise two units would
    # evict each other for ever.
    state.units[key].phase, state.units[key].ttl_override = Phase.CLOSING, 0.0
    yield CloseUnit(unit=key)
    yield Evicted(models=_names(state, key), reason=reason)


def _names(state: State, key: UnitKey) -> str:
    return ", ".join(sorted(s.name for s in state.models.values() if s.unit == key)) or "a replaced model"


def _enough(state: State, key: UnitKey, victims: list[UnitKey]) -> bool:
    """Return True if the unit fits once all of them are closed; otherwise closing them is no use."""
    weights = {k.weights for k in victims}
    freed = Amounts.of([*(state.units[k] for k in victims), *(state.workers[w] for w in weights)])
    return not _lacks(state, key, freed)


def _frees(state: State, key: UnitKey, short: tuple[str, ...]) -> bool:
    """Return True for a unit whose close frees memory in one of the places."""
    has = Amounts.of([state.units[key], state.workers[key.weights]])
    return "*" in short or any(has.places[place] for place in short)


def _victims(state: State, key: UnitKey) -> list[UnitKey]:
    """Return idle units that may be closed for this one: lowest rank first, then least recently used."""
    rank = _rank(state, key)
    found = [
        k
        for k in _idle(state)
        if k != key and (_rank(state, k) < rank or (_rank(state, k) == rank and not _stays_loaded(state, k)))
    ]
    return sorted(found, key=lambda k: _least_wanted(state, k))


def _idle(state: State) -> list[UnitKey]:
    """Return the open units that nothing uses, pins or waits for."""
    return [
        k
        for k, u in state.units.items()
        if u.phase is Phase.READY and not u.leases and not u.pinned and not _awaited(state, k)
    ]


def _least_wanted(state: State, key: UnitKey) -> tuple[int, float]:
    """Return the key by which the least wanted unit is first: lowest rank, then least recently used."""
    return _rank(state, key), state.units[key].last_used


def _awaited(state: State, key: UnitKey) -> bool:
    """Return True if a request waits for the unit."""
    return any(state.models[w.model].unit == key for w in state.waiting)


def _stays_loaded(state: State, key: UnitKey) -> bool:
    """Return True for a unit that loads at start and has no time to live."""
    return any(s.unit == key and s.at_start and s.ttl == FOREVER for s in state.models.values())


def _may_free(state: State, key: UnitKey) -> bool:
    """Return True if memory may become free: a unit is closing, or one that may be closed is only busy."""
    busy = (
        k
        for k, u in state.units.items()
        if k != key and not _stays_loaded(state, k) and (u.leases or (u.phase is Phase.READY and _awaited(state, k)))
    )
    closing = any(u.phase is Phase.CLOSING for u in state.units.values())
    stopping = any(w.phase is Phase.CLOSING for w in state.workers.values())
    return closing or stopping or any(True for _ in busy)


def _does_not_fit(state: State, key: UnitKey) -> MullamaError:
    need, taken, rules = _need(state, key), used_amounts(state), state.rules
    place = next((p for p in _lacks(state, key) if p not in ("*", "")), "")
    if place:
        counts, where = (need.places[place], taken.places[place], rules.places[place]), f" on {place}"
        hint = "use a smaller context.size, fewer gpu.layers, or a larger hardware.budget.gpu"
    else:
        counts, where = (need.total, taken.total, rules.budget or 0), ""
        hint = "use a smaller context.size, a smaller file, or a larger hardware.budget.ram"
    wanted, in_use, budget = (size(count, digits=2) for count in counts)
    return Refused(f"not enough memory{where}: {wanted} needed, {in_use} of {budget} in use", hint=hint)


def grant(state: State, now: float) -> Iterator[Command]:
    """Give places to waiting requests. `sorted` is stable, so equal priorities keep their order of arrival.

    A request that must run alone waits until its worker is free, and later ones wait behind it.
    """
    held = {unit.weights for _, unit in state.running.values() if state.alone(unit.weights, now)}
    for waiting in sorted(state.waiting, key=lambda w: -w.priority):
        if len(state.running) >= state.rules.concurrency:
            return
        serve = state.models[waiting.model]
        unit, weights = state.units[serve.unit], serve.unit.weights
        ready = unit.phase is Phase.READY and waiting.model not in state.paused and weights not in held
        if waiting.alone and ready:
            held.add(weights)
            ready = not any(other.weights == weights for _, other in state.running.values())
            if ready:
                state.alone_until[waiting.id] = now + ALONE_SECONDS
        if ready and state.taken(serve) < serve.parallel:
            state.waiting.remove(waiting)
            state.running[waiting.id] = (waiting.model, serve.unit)
            unit.leases.add(waiting.id)
            unit.last_used = now
            yield Grant(id=waiting.id, unit=serve.unit)


def wake(state: State, now: float) -> Iterator[Command]:
    """Ask for a tick at the next deadline."""
    moments = [_deadline(state, w) for w in state.waiting]
    moments += [w.retry_at for w in state.workers.values() if w.phase is Phase.COLD and w.retry_at > now]
    moments += [u.drain_until for u in state.units.values() if u.leases]
    moments += [until for until in state.alone_until.values() if until > now]
    for key, unit in state.units.items():
        if unit.phase is Phase.READY and not unit.leases:
            moments.append(unit.last_used + unit_ttl(state, key))
    # A unit that is open past its deadline is wanted for another reason, so time alone does not close it.
    if (soonest := min((m for m in moments if m > now - _ROUNDING), default=FOREVER)) < FOREVER:
        yield WakeAt(when=max(soonest, now + 0.001))
