"""Applies one event to the live state, then runs the seven passes."""

from __future__ import annotations

from collections.abc import Iterator

from mullama.errors import Busy, MullamaError, Unavailable
from mullama.runtime.scheduler.events import (
    FOREVER,
    Command,
    Event,
    FilesChanged,
    Leave,
    Pause,
    Pin,
    Refuse,
    Request,
    Resume,
    Retry,
    Serve,
    SetBounds,
    Settled,
    SetTtl,
    Stop,
    Swap,
    Tick,
    UnitClosed,
    UnitFailed,
    UnitKey,
    UnitOpened,
    Unpin,
    WorkerLost,
    WorkerReady,
    WorkerStopped,
)
from mullama.runtime.scheduler.eviction import evict, shrink
from mullama.runtime.scheduler.passes import close, expire, grant, grant_now, open_wanted, wake
from mullama.runtime.scheduler.state import (
    Phase,
    State,
    Unit,
    UnloadedEarly,
    WorkerState,
    forget_start,
    load_refusal,
    refuse_waiting,
    turn_away,
    unit_failed,
)
from mullama.runtime.scheduler.waiting import QueuedRequest
from mullama.runtime.scheduler.wants import rank, wanted_cold
from mullama.struct import replace
from mullama.units import counted

FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds before a failed worker is started again, doubled each time
CRASH_WINDOW, CRASH_LIMIT = 600.0, 5  # this many failures within so many seconds are permanent


def decide(state: State, event: Event, now: float) -> tuple[Command, ...]:
    """Apply one event and run the passes; return the commands in the order to perform them.

    A request that comes or goes and changes nothing for others runs no pass: see `_only_grants`.
    """
    grants = _only_grants(state, event, now)
    commands = [*_apply(state, event, now)]
    if grants is not None:
        commands.extend(grant_now(state, grants, now))
        return tuple(commands)
    for step in (expire, close, shrink):
        commands.extend(step(state, now))
    while True:
        state.crowd = None
        for unit in state.live_units.values():
            unit.yielding = False
        order = wanted_cold(state, now)
        if not order:  # usual at the end of a request
            break
        commands.extend(open_wanted(state, order, now))
        failed = state.failed_units
        commands.extend(evict(state, order, now))
        if state.failed_units == failed:
            break
        commands.extend(close(state, now))  # the worker of a unit that does not fit, which no model may need
        # Those that waited behind this unit have their turn.
    for step in (grant, wake):
        commands.extend(step(state, now))
    return tuple(commands)


def _only_grants(state: State, event: Event, now: float) -> tuple[str, ...] | None:
    """Return the models whose requests may be granted, for an event whose passes have nothing else to do; else None.

    There is nothing else to do before the next deadline, for a request to a loaded model or behind another one of its
    model, and for the end of a request on a unit that others still use.
    """
    if now >= state.due or state.waiting.alone or state.alone_until or state.stopping:
        return None
    match event:
        case Request(alone=False):
            model = _current_name(state, event.model)
            serve = state.models.get(model)
            if serve is None:
                return None
            asked = state.units[serve.unit]
            turned_away = event.falls_back or state.workers[serve.unit.weights].away
            if turned_away and asked.phase is not Phase.READY:
                return None  # its refusal may begin a restart
            later = state.crowd is not None and rank(state, serve.unit) <= state.crowd and not asked.starts
            return (model,) if asked.phase is Phase.READY or later or state.waiting.of(model) else None
        case Leave(id=id) if (found := state.running.get(id)) is not None:
            unit = state.units.get(found[1])
            if unit is None or len(unit.leases) < 2 or len(state.running) >= state.rules.concurrency:
                return None
            return tuple(serve.name for serve in state.users.get(found[1], ()))
        case _:
            return None


def _apply(state: State, event: Event, now: float) -> Iterator[Command]:  # noqa: C901, PLR0912, PLR0915 - a line per event
    match event:
        case Swap():
            _swap(state, event, now)
        case SetBounds(rules=rules):
            state.rules = replace(state.rules, budget=rules.budget, places=rules.places)
        case Pin(serve=serve):
            yield from _pin(state, serve)
        case Unpin(unit=key):
            if key in state.units:
                state.units[key].pinned = False
        case Pause(model=name):
            state.paused.add(name)
            state.waiting.changed.add(name)
            if name in state.models:
                _start_drain(state, state.models[name].unit, now)
        case Resume(model=name):
            state.paused.discard(name)
            state.waiting.changed.add(name)
            if name in state.models:
                state.units[state.models[name].unit].drain_until = FOREVER
        case Request():
            yield from _request(state, event, now)
        case Leave(id=id):
            _leave(state, id, now)
        case SetTtl():
            yield from _set_ttl(state, event, now)
        case WorkerReady(weights=key):
            if (worker := state.workers.get(key)) and worker.phase is Phase.OPENING:
                state.set_worker(key, Phase.READY)
                worker.error = None
        case WorkerLost():
            yield from _lost(state, event, now)
        case FilesChanged():
            yield from _files_changed(state, event)
        case WorkerStopped(weights=key):
            if (worker := state.workers.get(key)) and worker.phase in (Phase.CLOSING, Phase.OPENING):
                state.set_worker(key, Phase.COLD)
                worker.changed = None
                forget_start(state, key)
        case UnitOpened(unit=key):
            yield from _opened(state, key, now)
        case UnitFailed(unit=key, error=error):
            if _in(state, key, Phase.OPENING):
                yield from unit_failed(state, key, error)
        case UnitClosed(unit=key):
            if _in(state, key, Phase.CLOSING):
                state.set_unit(key, Phase.COLD)
        case Retry(model=name):
            if name in state.models:
                _clear_failures(state, state.models[name].unit)
        case Stop():
            yield from _stop(state, now)
        case Tick():
            pass


# Events


def _pin(state: State, serve: Serve) -> Iterator[Command]:
    unit = _unit(state, serve)
    state.pins[serve.unit] = None
    unit.pinned, unit.settled, unit.ttl_override, unit.unloaded = True, False, None, False
    unit.asked_ttl.clear()
    unit.pinned_for = serve.name
    _clear_failures(state, serve.unit)
    refused = _stopping() if state.stopping else state.workers[serve.unit.weights].changed or unit.changed
    if unit.phase is Phase.READY or refused is not None:
        unit.settled, unit.pinned = True, refused is None
        yield Settled(unit=serve.unit, error=refused)


def _stopping() -> MullamaError:
    return Unavailable("the server is stopping", retry_after=5)


def _stop(state: State, now: float) -> Iterator[Command]:
    """Let running requests drain; refuse waiting ones, and fail pins, at once."""
    state.stopping = True
    for key, unit in state.units.items():
        _start_drain(state, key, now)
        if unit.pinned and not unit.settled:
            unit.settled, unit.pinned = True, False
            yield Settled(unit=key, error=_stopping())
    for waiting in state.waiting.take(lambda _: True):
        yield Refuse(id=waiting.id, error=_stopping())


def _files_changed(state: State, event: FilesChanged) -> Iterator[Command]:
    """Fail the pins at once: their owner may be the run for which the new description of the files waits."""
    if event.unit is None and (worker := state.workers.get(event.weights)):
        worker.changed = event.error
    for key, unit in state.units.items():
        if key == event.unit or (event.unit is None and key.weights == event.weights):
            unit.changed = event.error if event.unit else None
            if unit.pinned and not unit.settled:
                unit.settled, unit.pinned = True, False
                yield Settled(unit=key, error=event.error)


def _in(state: State, key: UnitKey, phase: Phase) -> bool:
    return key in state.units and state.units[key].phase is phase


def _opened(state: State, key: UnitKey, now: float) -> Iterator[Command]:
    unit = state.units.get(key)
    # The worker may have died after its answer: `WorkerLost` arrived first, and the unit is no longer opening.
    if unit is None or unit.phase is not Phase.OPENING:
        return
    state.set_unit(key, Phase.READY)
    unit.error, unit.changed, unit.no_room = None, None, False
    unit.last_used, unit.opened_at, unit.ttl_override = now, now, None
    unit.fell_back_at = -FOREVER
    unit.asked_ttl.clear()
    if unit.pinned and not unit.settled:
        unit.settled = True
        yield Settled(unit=key, error=None)


def _set_ttl(state: State, event: SetTtl, now: float) -> Iterator[Command]:
    if event.ends_load:
        yield from _end_pins(state, event.model)
    if event.model not in state.models:
        return
    unit = state.units[state.models[event.model].unit]
    unit.last_used, unit.unloaded = now, event.seconds == 0.0
    if unit.unloaded:
        unit.fell_back_at = -FOREVER
    unit.ttl_override = event.seconds if event.forced or event.ends_load else None
    unit.asked_ttl.pop(event.model, None)
    if event.seconds is not None:
        unit.asked_ttl[event.model] = event.seconds
    if event.forced:
        unit.drain_until = now  # `expire` cancels its running requests
        state.draining[state.models[event.model].unit] = None
    if event.forced or (event.ends_load and unit.phase is not Phase.READY):
        for waiting in state.waiting.take(lambda w: w.model == event.model):
            yield Refuse(id=waiting.id, error=Unavailable(f"{event.model} was unloaded", retry_after=1))


def _end_pins(state: State, model: str) -> Iterator[Command]:
    """Fail the pins of units that load for this model."""
    for key, unit in state.units.items():
        if unit.pinned and not unit.settled and unit.pinned_for == model:
            unit.settled, unit.pinned = True, False
            yield Settled(unit=key, error=UnloadedEarly(model))


def _swap(state: State, event: Swap, now: float) -> None:
    old = {serve.unit for serve in state.models.values()}
    for waiting in state.waiting:
        serve = state.models.get(waiting.model)
        if serve and (state.workers[serve.unit.weights].changed or state.units[serve.unit].changed):
            waiting.since = now  # the time in which its files were described again does not count
    state.models, state.rules, state.moved = dict(event.models), event.rules, dict(event.moved)
    state.index()
    state.waiting.rename(lambda name: _current_name(state, name))
    state.paused.clear()
    for serve in state.models.values():
        unit = _unit(state, serve)
        unit.pinned, unit.drain_until = False, FOREVER
    for key, unit in state.units.items():
        users = state.users.get(key, ())
        unit.names = tuple(s.name for s in users) or tuple(_current_name(state, name) for name in unit.names)
    state.aim()
    for key in old - {serve.unit for serve in state.models.values()}:
        _start_drain(state, key, now)


def _unit(state: State, serve: Serve) -> Unit:
    """Return the unit's entry, created with its worker's if need be, with the sizes of this model."""
    worker = state.workers.setdefault(serve.unit.weights, WorkerState())
    unit = state.units.setdefault(serve.unit, Unit())
    if serve.unit not in state.users:
        state.orphans[serve.unit] = None
    state.units_of.setdefault(serve.unit.weights, {})[serve.unit] = unit
    worker.bytes, unit.bytes = serve.weights_bytes, serve.context_bytes
    worker.on, unit.on = serve.weights_on, serve.context_on
    unit.drain_timeout = serve.drain_timeout
    unit.names = unit.names or (serve.name,)
    return unit


def _clear_failures(state: State, key: UnitKey) -> None:
    if worker := state.workers.get(key.weights):
        worker.failures.clear()
        worker.excused.clear()
        worker.retry_at, worker.permanently_failed, worker.error = 0.0, False, None
    if unit := state.units.get(key):
        unit.error, unit.no_room = None, False


def _current_name(state: State, name: str) -> str:
    """Return the present name of a model, so that a request from before a rename finds it."""
    return name if name in state.models else state.moved.get(name, name)


def _start_drain(state: State, key: UnitKey, now: float) -> None:
    if (unit := state.units.get(key)) and unit.drain_until == FOREVER:
        unit.drain_until = now + unit.drain_timeout
        state.draining[key] = None


def _request(state: State, event: Request, now: float) -> Iterator[Command]:
    """1. stopping  2. removed  3. failed to load  4. its host is away  5. its own queue is full  6. the common queue is
    full  7. wait."""
    model = _current_name(state, event.model)
    serve = state.models.get(model)
    if state.stopping:
        yield Refuse(id=event.id, error=_stopping())
        return
    if serve is None:
        # The request found the model in the snapshot before the swap that removed it.
        yield Refuse(id=event.id, error=Unavailable(f"{model} was removed from the manifest"))
        return
    room = state.taken(serve) < serve.parallel and not state.queued(model)
    if (error := _load_error(state, serve.unit)) is not None:
        yield Refuse(id=event.id, error=load_refusal(model, error))
    elif (event.falls_back and _restarts(state, serve.unit)) or _is_away(state, serve.unit, now):
        yield turn_away(state, serve.unit, event.id, model, now)
    elif not room and state.queued(model) >= serve.queue:
        yield Refuse(id=event.id, error=_full(model, serve.queue, state.queued(model), "limits.queue of the model"))
    elif len(state.waiting) >= state.rules.queue:
        yield Refuse(
            id=event.id, error=_full("the server", state.rules.queue, len(state.waiting), "server.limits.queue")
        )
    else:
        state.units[serve.unit].unloaded = False
        queued = QueuedRequest(
            id=event.id, model=model, priority=event.priority, since=now, alone=event.alone,
            falls_back=event.falls_back,
        )  # fmt: skip
        state.waiting.add(queued)


def _full(queue: str, bound: int, waiting: int, field: str) -> Busy:
    return Busy(
        f"{queue} is busy: {counted(waiting, 'request')} waiting, the limit is {bound}",
        hint=f"try again later, or raise {field}",
        retry_after=max(1.0, min(30.0, waiting * 0.5)),
    )


def _load_error(state: State, key: UnitKey) -> MullamaError | None:
    """Return the error of a unit that will not open without a retry."""
    worker, unit = state.workers.get(key.weights), state.units.get(key)
    if worker and worker.permanently_failed:
        return worker.error
    return unit.error if unit and not unit.no_room else None


def _restarts(state: State, key: UnitKey) -> bool:
    """Return True for a worker that failed and has not been ready since."""
    worker = state.workers[key.weights]
    return worker.error is not None and worker.phase in (Phase.COLD, Phase.OPENING)


def _is_away(state: State, key: UnitKey, now: float) -> bool:
    """Return True for a worker whose host did not answer, until its next start."""
    worker = state.workers[key.weights]
    return worker.away and worker.error is not None and worker.phase is Phase.COLD and worker.retry_at > now


def _leave(state: State, id: int, now: float) -> None:
    state.waiting.remove(id)
    state.alone_until.pop(id, None)
    if (used := state.end(id)) and (unit := state.units.get(used)):
        unit.leases.discard(id)
        unit.last_used = now


def _lost(state: State, event: WorkerLost, now: float) -> Iterator[Command]:
    """Close its units and plan another start, with growing delay and a bound on the number of failures."""
    worker = state.workers.get(event.weights)
    if worker is None:
        return
    worker.failures = [t for t in worker.failures if now - t < CRASH_WINDOW] + [now]
    worker.excused = [t for t in worker.excused if now - t < CRASH_WINDOW] + [now] * event.excused
    count = len(worker.failures)
    state.set_worker(event.weights, Phase.COLD)
    worker.error, worker.away, worker.changed = event.error, event.away, None
    worker.permanently_failed = event.permanent or count - len(worker.excused) >= CRASH_LIMIT
    forget_start(state, event.weights)
    worker.retry_at = now + min(LAST_DELAY, FIRST_DELAY * 2 ** (count - 1))
    for key, unit in state.units.items():
        if key.weights == event.weights:
            state.set_unit(key, Phase.COLD)
            if unit.pinned and not unit.settled:
                unit.settled, unit.pinned = True, False
                yield Settled(unit=key, error=event.error)
    if worker.permanently_failed:
        yield from refuse_waiting(state, event.weights, event.error)
        return

    def leaves(waiting: QueuedRequest) -> bool:
        return (waiting.falls_back or event.away) and state.models[waiting.model].unit.weights == event.weights

    for waiting in state.waiting.take(leaves):
        yield turn_away(state, state.models[waiting.model].unit, waiting.id, waiting.model, now)
