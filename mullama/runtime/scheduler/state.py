"""The live state that `decide` owns, and questions that only read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from mullama.errors import MullamaError
from mullama.runtime.scheduler.events import FOREVER, Command, Refuse, Rules, Serve, Settled, UnitKey


class Phase(StrEnum):
    COLD = "cold"
    OPENING = "opening"
    READY = "ready"
    CLOSING = "closing"


@dataclass(slots=True, kw_only=True)
class WorkerState:
    phase: Phase = Phase.COLD
    bytes: int = 0
    failures: list[float] = field(default_factory=list)
    retry_at: float = 0.0
    error: MullamaError | None = None
    hopeless: bool = False


@dataclass(slots=True, kw_only=True)
class Unit:
    """crowded: the error is only that there was no room, so it is tried again as soon as there is."""

    phase: Phase = Phase.COLD
    bytes: int = 0
    leases: set[int] = field(default_factory=set)
    held: bool = False
    settled: bool = False
    last_used: float = 0.0
    keep: float | None = None
    error: MullamaError | None = None
    crowded: bool = False
    drain_until: float = FOREVER
    drain_timeout: float = 120.0


@dataclass(slots=True, kw_only=True)
class QueuedRequest:
    id: int
    model: str
    priority: int
    since: float


@dataclass(slots=True, kw_only=True)
class State:
    """All of it. `waiting` is in order of arrival; `running` maps a request to its model and unit.

    moved: what models of the last swap were called before it.
    """

    models: dict[str, Serve] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    units: dict[UnitKey, Unit] = field(default_factory=dict)
    workers: dict[str, WorkerState] = field(default_factory=dict)
    waiting: list[QueuedRequest] = field(default_factory=list)
    running: dict[int, tuple[str, UnitKey]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    stopping: bool = False

    def active(self, model: str) -> int:
        """Running requests of the model, on old units that drain as well."""
        return sum(name == model for name, _ in self.running.values())

    def taken(self, serve: Serve) -> int:
        """Places taken on the model's present unit; what drains on an old one takes none."""
        return sum(found == (serve.name, serve.unit) for found in self.running.values())

    def queued(self, model: str) -> int:
        return sum(w.model == model for w in self.waiting)


def failure(state: State, model: str) -> MullamaError | None:
    """Why the model cannot serve now, if it cannot: for `status`."""
    serve = state.models.get(model)
    if serve is None:
        return None
    worker, unit = state.workers.get(serve.unit.weights), state.units.get(serve.unit)
    if worker and worker.error and worker.phase is Phase.COLD:
        return worker.error
    return unit.error if unit else None


def unit_failed(state: State, key: UnitKey, error: MullamaError) -> Iterator[Command]:
    """A context that cannot be made on good weights will not be made by trying again."""
    unit = state.units.get(key)
    if unit is None:
        return
    unit.phase, unit.error = Phase.COLD, error
    if unit.held and not unit.settled:
        unit.settled, unit.held = True, False
        yield Settled(unit=key, error=error)
    yield from refuse_waiting(state, key.weights, error, key)


def refuse_waiting(state: State, weights: str, error: MullamaError, only: UnitKey | None = None) -> Iterator[Command]:
    hit = [w for w in state.waiting if (unit := state.models[w.model].unit).weights == weights and only in (None, unit)]
    state.waiting = [w for w in state.waiting if w not in hit]
    for waiting in hit:
        yield Refuse(id=waiting.id, error=error)
