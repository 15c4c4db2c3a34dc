"""The live state that `decide` owns, with functions that read it or fail parts of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from mullama.errors import Kind, MullamaError, Unavailable
from mullama.runtime.scheduler.events import FOREVER, Command, GroupBound, Refuse, Rules, Serve, Settled, UnitKey
from mullama.runtime.scheduler.waiting import QueuedRequest, WaitingQueue
from mullama.struct import Struct, field

_FAULTS_OF_FILES = (Kind.INVALID, Kind.NOT_FOUND, Kind.DENIED, Kind.TOO_LARGE, Kind.TRANSFER)


class Phase(StrEnum):
    COLD = "cold"
    OPENING = "opening"
    READY = "ready"
    CLOSING = "closing"


class WorkerState(Struct, kw_only=True):
    phase: Phase = Phase.COLD
    bytes: int = 0
    on: Mapping[str, int] = field(default_factory=dict)
    """See `Serve.weights_on`."""
    failures: list[float] = field(default_factory=list)
    """Times of recent failures."""
    excused: list[float] = field(default_factory=list)
    """Those of them that count for the delay alone."""
    retry_at: float = 0.0
    error: MullamaError | None = None
    """The last failure, until the worker is ready again."""
    away: bool = False
    """The last failure is the absence of a host that lends it devices."""
    permanently_failed: bool = False
    """Not started again before an explicit retry."""
    changed: MullamaError | None = None
    """Set while the files are described again, because they changed on disk."""


class Unit(Struct, kw_only=True):
    """One context."""

    phase: Phase = Phase.COLD
    bytes: int = 0
    on: Mapping[str, int] = field(default_factory=dict)
    """See `Serve.context_on`."""
    leases: set[int] = field(default_factory=set)
    """Ids of the requests that use it."""
    pinned: bool = False
    """Opened and kept open for the reconciler, whatever its models need."""
    pinned_for: str = ""
    """The model of the last pin."""
    settled: bool = False
    """The pin has its `Settled`."""
    names: tuple[str, ...] = ()
    """The models that lead to it; those that did, while it drains."""
    last_used: float = 0.0
    """0 for never."""
    opened_at: float = 0.0
    replaced_at: float = -FOREVER
    """When it was last closed for another unit."""
    displaced: bool = False
    """It was closed for another one, or there is no room for it; its worker stops."""
    starts: bool = False
    """Its worker is started for it, so that its memory is kept free until it is opened."""
    yielding: bool = False
    """It gets no further requests until a unit that waits for its memory is open; set anew after each event."""
    ttl_override: float | None = None
    """Replaces the time to live of all its models until the unit is opened again: it is unloaded or evicted."""
    asked_ttl: dict[str, float] = field(default_factory=dict)
    """The time to live that requests chose for a model, instead of the declared one, until the unit is opened again."""
    fell_back_at: float = -FOREVER
    """When a request last went to another model because the worker had failed; see `wants.RESTARTING`."""
    unloaded: bool = False
    """A client unloaded it, and no request has come since: its load ends."""
    error: MullamaError | None = None
    changed: MullamaError | None = None
    """See `WorkerState.changed`: for its adapters."""
    no_room: bool = False
    """The error is a lack of memory: the unit is tried again as soon as there is room."""
    drain_until: float = FOREVER
    """When requests that still run are cancelled."""
    drain_timeout: float = 120.0


class Target(NamedTuple):
    """The unit and the worker of a model, found without the hash of a key."""

    key: UnitKey
    unit: Unit
    worker: WorkerState
    rank: int
    """See `State.ranks`."""


class Asked(NamedTuple):
    """The turn of a unit that requests wait for; those with the lowest values are first."""

    rank: int
    since: float
    bytes: int
    order: int
    """Of the oldest request, or of the unit in the manifest where none waits; never the same in two of them."""
    target: Target


class State(Struct, kw_only=True):
    """The complete live state."""

    models: dict[str, Serve] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    units: dict[UnitKey, Unit] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    users: dict[UnitKey, tuple[Serve, ...]] = field(default_factory=dict)
    """The models that lead to each unit; see `index`."""
    groups_of: dict[str, tuple[GroupBound, ...]] = field(default_factory=dict)
    """The groups of each model that is in one."""
    residents: tuple[UnitKey, ...] = ()
    """The units that are wanted without a request."""
    ranks: dict[UnitKey, int] = field(default_factory=dict)
    """The highest priority of the models of each unit."""
    targets: dict[str, Target] = field(default_factory=dict)
    """By model; see `aim`."""
    units_of: dict[str, dict[UnitKey, Unit]] = field(default_factory=dict)
    """The units of each worker, by weights."""
    deadlines: list[tuple[float, int, str]] = field(default_factory=list)
    """A heap: a time before which the first request of a model is not refused, the id of this request, the model."""
    turns: list[Asked] = field(default_factory=list)
    """The closed units that requests wait for, in order; those of paused models are not among them."""
    turn_of: dict[UnitKey, Asked] = field(default_factory=dict)
    """The entry of each of them."""
    live_units: dict[UnitKey, Unit] = field(default_factory=dict)
    """The units that are open, or are being opened or closed."""
    live_workers: dict[str, WorkerState] = field(default_factory=dict)
    """The workers that run, start or stop."""
    stopped: dict[str, None] = field(default_factory=dict)
    """Workers that ended: they may wait for their next start, or have no unit any more."""
    draining: dict[UnitKey, None] = field(default_factory=dict)
    """Units with a drain deadline, among others."""
    pins: dict[UnitKey, None] = field(default_factory=dict)
    """Pinned units, among others."""
    restarting: dict[UnitKey, None] = field(default_factory=dict)
    """Units that are opened again although their requests went to other models, among others."""
    orphans: dict[UnitKey, None] = field(default_factory=dict)
    """Units to which no model leads."""
    waiting: WaitingQueue = field(default_factory=WaitingQueue)
    running: dict[int, tuple[str, UnitKey]] = field(default_factory=dict)
    """Request → its model and unit; changed by `start` and `end` only."""
    places: Counter[tuple[str, UnitKey]] = field(default_factory=Counter)
    """The number of running requests of each model and unit."""
    alone_until: dict[int, float] = field(default_factory=dict)
    """Running request → until when its worker serves no other."""
    paused: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    """Old name → new name of the models that the last swap renamed."""
    stopping: bool = False
    failed_units: int = 0
    """How often a unit failed to open that a request or the reconciler waited for."""
    crowd: int | None = None
    """The rank of a unit that waits for memory of all devices: none of this rank or a lower one is opened before it."""
    due: float = -FOREVER
    """No pass has anything to do before this time unless an event changes something; see `wake`."""

    def index(self) -> None:
        """Derive `users`, `groups_of`, `residents` and `ranks` from the models and rules."""
        users: dict[UnitKey, list[Serve]] = {}
        for serve in self.models.values():
            users.setdefault(serve.unit, []).append(serve)
        self.users = {key: tuple(found) for key, found in users.items()}
        groups: dict[str, list[GroupBound]] = {}
        for bound in self.rules.groups:
            for name in bound.models:
                groups.setdefault(name, []).append(bound)
        self.groups_of = {name: tuple(found) for name, found in groups.items()}
        self.ranks = {key: max(serve.priority for serve in found) for key, found in users.items()}
        self.residents = tuple(key for key, u in self.users.items() if any(s.at_start or s.when_room for s in u))

    def aim(self) -> None:
        """Derive `targets` from the models and their units, and look at all deadlines anew."""
        self.targets = {
            s.name: Target(key, self.units[key], self.workers[key.weights], self.ranks[key])
            for key, found in self.users.items()
            for s in found
        }
        self.orphans = dict.fromkeys(key for key in self.units if key not in self.users)
        self.deadlines, self.turns, self.turn_of = [], [], {}
        self.waiting.changed = set(self.waiting.models)

    def set_unit(self, key: UnitKey, phase: Phase) -> None:
        """Change the phase of a unit, which nothing else may do."""
        unit = self.units[key]
        if (unit.phase is Phase.COLD) is not (phase is Phase.COLD):
            self.waiting.changed.update(s.name for s in self.users.get(key, ()) if self.waiting.of(s.name))
            if phase is Phase.COLD:
                del self.live_units[key]
            else:
                self.live_units[key] = unit
        unit.phase = phase

    def set_worker(self, weights: str, phase: Phase) -> None:
        """Change the phase of a worker, which nothing else may do."""
        worker = self.workers[weights]
        worker.phase = phase
        if phase is Phase.COLD:
            self.live_workers.pop(weights, None)
            self.stopped[weights] = None
        else:
            self.live_workers[weights] = worker

    def starting(self) -> list[UnitKey]:
        """Return the closed units whose workers start for them."""
        known = ((key, unit) for weights in self.live_workers for key, unit in self.units_of.get(weights, {}).items())
        return [key for key, unit in known if unit.starts and unit.phase is Phase.COLD]

    def start(self, id: int, model: str, unit: UnitKey) -> None:
        """Note that a request runs."""
        self.running[id] = (model, unit)
        self.places[model, unit] += 1

    def end(self, id: int) -> UnitKey | None:
        """Note that a request does not run any more; return the unit that it used, None if it did not run."""
        found = self.running.pop(id, None)
        if found is None:
            return None
        self.places[found] -= 1
        if not self.places[found]:
            del self.places[found]
        return found[1]

    def active(self, model: str) -> int:
        """Count the running requests of the model, with those on old units that drain."""
        return sum(name == model for name, _ in self.running.values())

    def taken(self, serve: Serve) -> int:
        """Count the places taken on the model's present unit, without those on old units that drain."""
        return self.places[serve.name, serve.unit]

    def alone(self, weights: str, now: float) -> bool:
        """Return True while a running request keeps others from this worker."""
        held = (self.running[id][1].weights for id, until in self.alone_until.items() if until > now)
        return weights in held

    def queued(self, model: str) -> int:
        return len(self.waiting.of(model))


def failure(state: State, model: str) -> MullamaError | None:
    """Return why the model cannot serve now; None if it can.

    A host that is away is still the reason while a next start asks for it.
    """
    serve = state.models.get(model)
    if serve is None:
        return None
    worker, unit = state.workers.get(serve.unit.weights), state.units.get(serve.unit)
    if worker and worker.error and (worker.phase is Phase.COLD or (worker.away and worker.phase is Phase.OPENING)):
        return worker.error
    return unit.error if unit else None


class UnloadedEarly(Unavailable):
    """A client ended the load of a model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} was unloaded while it loaded", retry_after=1)


def unit_failed(state: State, key: UnitKey, error: MullamaError) -> Iterator[Command]:
    """Record that a unit failed to open. The error is final: on good weights, a second try fails as well."""
    unit = state.units.get(key)
    if unit is None:
        return
    state.failed_units += unit.pinned or any(state.waiting.of(s.name) for s in state.users.get(key, ()))
    state.set_unit(key, Phase.COLD)
    unit.error, unit.changed, unit.starts = error, None, False
    if unit.pinned and not unit.settled:
        yield Settled(unit=key, error=error)
        unit.settled = True
    unit.pinned = False  # also of one that was open before its worker died
    yield from refuse_waiting(state, key.weights, error, key)


def forget_start(state: State, weights: str) -> None:
    """Keep no memory for the unit for which a worker was started that is not there any more."""
    for unit in state.units_of.get(weights, {}).values():
        unit.starts = False


def refuse_waiting(state: State, weights: str, error: MullamaError, only: UnitKey | None = None) -> Iterator[Command]:
    """Refuse the requests that wait for these weights, or for one unit of them."""

    def concerned(waiting: QueuedRequest) -> bool:
        unit = state.models[waiting.model].unit
        return unit.weights == weights and only in (None, unit)

    for waiting in state.waiting.take(concerned):
        yield Refuse(id=waiting.id, error=load_refusal(waiting.model, error))


def turn_away(state: State, key: UnitKey, id: int, model: str, now: float) -> Refuse:
    """Refuse a request at once, or send it to the next model of its route, and open the unit for later requests."""
    state.units[key].fell_back_at = now
    state.restarting[key] = None
    worker = state.workers[key.weights]
    reason, hint = (worker.error.message, worker.error.hint) if worker.error else ("its worker is restarted", "")
    later = max(1.0, worker.retry_at - now) if worker.away else 1.0
    return Refuse(id=id, error=Unavailable(f"model '{model}' cannot be served: {reason}", hint=hint, retry_after=later))


def load_refusal(model: str, error: MullamaError) -> MullamaError:
    """Return the answer to a request whose model failed to load. Bad files are not the client's fault."""
    if error.kind not in _FAULTS_OF_FILES:
        return error
    return Unavailable(f"model '{model}' cannot be served: {error.message}", hint=error.hint, retry_after=5.0)
