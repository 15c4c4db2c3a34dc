"""The live state that `decide` owns, with functions that read it or fail parts of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from mullama.errors import MullamaError, Unavailable
from mullama.runtime.scheduler.events import FOREVER, Command, Refuse, Rules, Serve, Settled, UnitKey
from mullama.struct import Struct, field


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
    last_used: float = 0.0
    """0 for never."""
    ttl_override: float | None = None
    """Replaces the time to live of all its models until the unit is opened again: it is unloaded or evicted."""
    asked_ttl: dict[str, float] = field(default_factory=dict)
    """The time to live that requests chose for a model, instead of the declared one, until the unit is opened again."""
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


class QueuedRequest(Struct, kw_only=True):
    id: int
    model: str
    priority: int
    since: float
    alone: bool = False


class State(Struct, kw_only=True):
    """The complete live state."""

    models: dict[str, Serve] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    units: dict[UnitKey, Unit] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    waiting: list[QueuedRequest] = field(default_factory=list)
    """In order of arrival."""
    running: dict[int, tuple[str, UnitKey]] = field(default_factory=dict)
    """Request → its model and unit."""
    alone_until: dict[int, float] = field(default_factory=dict)
    """Running request → until when its worker serves no other."""
    paused: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    """Old name → new name of the models that the last swap renamed."""
    stopping: bool = False

    def active(self, model: str) -> int:
        """Count the running requests of the model, with those on old units that drain."""
        return sum(name == model for name, _ in self.running.values())

    def taken(self, serve: Serve) -> int:
        """Count the places taken on the model's present unit, without those on old units that drain."""
        return sum(found == (serve.name, serve.unit) for found in self.running.values())

    def alone(self, weights: str, now: float) -> bool:
        """Return True while a running request keeps others from this worker."""
        held = (self.running[id][1].weights for id, until in self.alone_until.items() if until > now)
        return weights in held

    def queued(self, model: str) -> int:
        return sum(w.model == model for w in self.waiting)


def failure(state: State, model: str) -> MullamaError | None:
    """Return why the model cannot serve now; None if it can."""
    serve = state.models.get(model)
    if serve is None:
        return None
    worker, unit = state.workers.get(serve.unit.weights), state.units.get(serve.unit)
    if worker and worker.error and worker.phase is Phase.COLD:
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
    unit.phase, unit.error, unit.changed = Phase.COLD, error, None
    if unit.pinned and not unit.settled:
        unit.settled, unit.pinned = True, False
        yield Settled(unit=key, error=error)
    yield from refuse_waiting(state, key.weights, error, key)


def refuse_waiting(state: State, weights: str, error: MullamaError, only: UnitKey | None = None) -> Iterator[Command]:
    """Refuse the requests that wait for these weights, or for one unit of them."""
    hit = [w for w in state.waiting if (unit := state.models[w.model].unit).weights == weights and only in (None, unit)]
    state.waiting = [w for w in state.waiting if w not in hit]
    for waiting in hit:
        yield Refuse(id=waiting.id, error=error)
