"""The events that the scheduler receives and the commands that it returns. Times: monotonic seconds; sizes: bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mullama.errors import MullamaError

FOREVER = float("inf")
ALONE_SECONDS = 10.0
"""For so long at most a request that must run alone keeps others from its worker."""


@dataclass(frozen=True, slots=True)
class UnitKey:
    """One context over one set of weights; each part is a digest of everything that defines it."""

    weights: str
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A model as the scheduler sees it."""

    name: str
    unit: UnitKey
    parallel: int = 1
    queue: int = 64
    queue_timeout: float = 30.0
    """Seconds that a request may wait for a place."""
    load_timeout: float = 600.0
    """Seconds that a request may wait while its model loads or is replaced, if that is longer than `queue_timeout`."""
    ttl: float = FOREVER
    """Seconds that the unit stays open after its last use."""
    priority: int = 0
    at_start: bool = True
    drain_timeout: float = 120.0
    """Seconds that running requests get to finish when the unit is replaced."""
    weights_bytes: int = 0
    """Estimated memory of the weights."""
    context_bytes: int = 0
    """Estimated memory of the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds over all models."""

    concurrency: int = 64
    """Running requests."""
    queue: int = 256
    """Waiting requests."""
    budget: int | None = None
    """Bytes; None for no bound."""


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Names lead to these units from now on: the new snapshot. moved: old name → new name of renamed models."""

    models: Mapping[str, Serve]
    rules: Rules
    moved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The reconciler needs this unit open before the swap; `Settled` reports that it is open, or the error."""

    serve: Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpin:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Admit no request of this model and let its unit close, because old and new do not fit in memory together."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: int
    model: str
    priority: int = 0
    alone: bool = False
    """The worker serves no other request while this one begins, see `ALONE_SECONDS`: it may end the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The request ended, or its client left the queue."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTtl:
    """Set the time to live of a model's unit: 0 unloads it when idle, infinity keeps it, None means the declared one.

    forced: cancel its running requests and refuse its waiting ones. ends_load: if it is not open, end its load, also
    one for the reconciler, and refuse the requests that wait for it.
    """

    model: str
    seconds: float | None
    forced: bool = False
    ends_load: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """The worker could not start, or died.

    permanent: the file itself is at fault, so it is not tried again. excused: a request or the system is at fault, so
    it does not count towards the limit after which the worker is not started again.
    """

    weights: str
    error: MullamaError
    permanent: bool = False
    excused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesChanged:
    """The files of weights that open, or the adapters of one unit that opens, changed on disk.

    They are described again, which ends in a `Swap` and then `WorkerStopped`, `WorkerLost` or `UnitFailed`.
    """

    weights: str
    error: MullamaError
    """The outcome for the pins of the units concerned."""
    unit: UnitKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOpened:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailed:
    unit: UnitKey
    error: MullamaError


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitClosed:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Forget the failures of a model, after an explicit request or a change of the manifest."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Admit nothing new; close each unit when its last request is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed."""


Event = (
    Swap | Pin | Unpin | Pause | Resume | Request | Leave | SetTtl | WorkerReady | WorkerLost
    | FilesChanged | WorkerStopped | UnitOpened | UnitFailed | UnitClosed | Retry | Stop | Tick
)  # fmt: skip


# Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker:
    """Stop a worker, also one that still loads."""

    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUnit:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseUnit:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Let this request use the unit until it leaves."""

    id: int
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    id: int
    error: MullamaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End this running request, because the drain deadline of its unit passed."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A pinned unit is open (error None) or failed to open."""

    unit: UnitKey
    error: MullamaError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    when: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """Report that a unit is closed although its time to live has not passed. models: its names, for people."""

    models: str
    reason: str


Command = StartWorker | StopWorker | OpenUnit | CloseUnit | Evicted | Grant | Refuse | Cancel | Settled | WakeAt
