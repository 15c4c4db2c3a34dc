"""The events that the scheduler receives and the commands that it returns. Times: monotonic seconds; sizes: bytes."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.errors import MullamaError
from mullama.struct import Struct, field, replace

FOREVER = float("inf")
ALONE_SECONDS = 10.0
"""For so long at most a request that must run alone keeps others from its worker."""


class UnitKey(Struct, frozen=True):
    """One context over one set of weights; each part is a digest of everything that defines it."""

    weights: str
    context: str


class Serve(Struct, frozen=True, kw_only=True):
    """A model as the scheduler sees it."""

    name: str
    unit: UnitKey
    parallel: int = 1
    queue: int = 64
    queue_timeout: float = 30.0
    """Seconds that a request may wait for a turn and for a place, without those in which its model loads."""
    load_timeout: float = 600.0
    """Seconds that a request may wait while its model loads or is replaced, if that is longer than `queue_timeout`."""
    ttl: float = FOREVER
    """Seconds that the unit stays open after its last use."""
    priority: int = 0
    at_start: bool = True
    when_room: bool = False
    """The unit is open whenever nothing else needs its memory."""
    drain_timeout: float = 120.0
    """Seconds that running requests get to finish when the unit is replaced."""
    weights_bytes: int = 0
    """Estimated memory of the weights."""
    context_bytes: int = 0
    """Estimated memory of the context."""
    weights_on: Mapping[str, int] = field(default_factory=dict)
    """The parts of `weights_bytes` on devices; main memory has the rest."""
    context_on: Mapping[str, int] = field(default_factory=dict)
    """The parts of `context_bytes` on devices."""


class GroupBound(Struct, frozen=True, kw_only=True):
    """At most `most` of these models are loaded at a time."""

    name: str
    models: frozenset[str]
    most: int


class Rules(Struct, frozen=True, kw_only=True):
    """Bounds over all models."""

    concurrency: int = 64
    """Running requests."""
    queue: int = 256
    """Waiting requests."""
    budget: int | None = None
    """Bytes on all devices together; None for no bound."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Bytes on each device, and in main memory by the name ""; without an entry there is no bound."""
    groups: tuple[GroupBound, ...] = ()

    def widened(self, later: Rules) -> Rules:
        """Return these rules with the larger memory bounds of both; a place with one bound keeps it."""
        budget = None if self.budget is None or later.budget is None else max(self.budget, later.budget)
        places = {place: max(self.places.get(place, 0), bound) for place, bound in later.places.items()}
        return replace(self, budget=budget, places={**self.places, **places})


# Events


class Swap(Struct, frozen=True, kw_only=True):
    """Names lead to these units from now on: the new snapshot. moved: old name → new name of renamed models."""

    models: Mapping[str, Serve]
    rules: Rules
    moved: Mapping[str, str] = field(default_factory=dict)


class SetBounds(Struct, frozen=True, kw_only=True):
    """The memory bounds of these rules hold from now on, beside the other rules as they are."""

    rules: Rules


class Pin(Struct, frozen=True, kw_only=True):
    """The reconciler needs this unit open before the swap; `Settled` reports that it is open, or the error."""

    serve: Serve


class Unpin(Struct, frozen=True, kw_only=True):
    unit: UnitKey


class Pause(Struct, frozen=True, kw_only=True):
    """Admit no request of this model and let its unit close, because old and new do not fit in memory together."""

    model: str


class Resume(Struct, frozen=True, kw_only=True):
    model: str


class Request(Struct, frozen=True, kw_only=True):
    id: int
    model: str
    priority: int = 0
    alone: bool = False
    """The worker serves no other request while this one begins, see `ALONE_SECONDS`: it may end the worker."""
    falls_back: bool = False
    """Another model answers the request if this one cannot: it does not wait for a worker that failed to restart."""


class Leave(Struct, frozen=True, kw_only=True):
    """The request ended, or its client left the queue."""

    id: int


class SetTtl(Struct, frozen=True, kw_only=True):
    """Set the time to live of a model: 0 unloads it when idle, infinity keeps it, None means the declared one.

    Other models that lead to its unit keep theirs, so the unit stays open as long as one of them wants it. With forced
    or ends_load, the time to live is that of the unit. forced: cancel its running requests and refuse its waiting ones.
    ends_load: if it is not open, end its load, also one for the reconciler, and refuse the requests that wait for it.
    """

    model: str
    seconds: float | None
    forced: bool = False
    ends_load: bool = False


class WorkerReady(Struct, frozen=True, kw_only=True):
    weights: str


class WorkerLost(Struct, frozen=True, kw_only=True):
    """The worker could not start, or died.

    permanent: the file itself is at fault, so it is not tried again. excused: a request or the system is at fault, so
    it does not count towards the limit after which the worker is not started again. away: a host that lends it devices
    does not answer, for as long as that host likes, so no request waits for the next start.
    """

    weights: str
    error: MullamaError
    permanent: bool = False
    excused: bool = False
    away: bool = False


class FilesChanged(Struct, frozen=True, kw_only=True):
    """The files of weights that open, or the adapters of one unit that opens, changed on disk.

    They are described again, which ends in a `Swap` and then `WorkerStopped`, `WorkerLost` or `UnitFailed`.
    """

    weights: str
    error: MullamaError
    """The outcome for the pins of the units concerned."""
    unit: UnitKey | None = None


class WorkerStopped(Struct, frozen=True, kw_only=True):
    weights: str


class UnitOpened(Struct, frozen=True, kw_only=True):
    unit: UnitKey


class UnitFailed(Struct, frozen=True, kw_only=True):
    unit: UnitKey
    error: MullamaError


class UnitClosed(Struct, frozen=True, kw_only=True):
    unit: UnitKey


class Retry(Struct, frozen=True, kw_only=True):
    """Forget the failures of a model, after an explicit request or a change of the manifest."""

    model: str


class Stop(Struct, frozen=True, kw_only=True):
    """Admit nothing new; close each unit when its last request is done."""


class Tick(Struct, frozen=True, kw_only=True):
    """Time passed."""


Event = (
    Swap | SetBounds | Pin | Unpin | Pause | Resume | Request | Leave | SetTtl | WorkerReady | WorkerLost
    | FilesChanged | WorkerStopped | UnitOpened | UnitFailed | UnitClosed | Retry | Stop | Tick
)  # fmt: skip


# Commands


class StartWorker(Struct, frozen=True, kw_only=True):
    weights: str


class StopWorker(Struct, frozen=True, kw_only=True):
    """Stop a worker, also one that still loads."""

    weights: str


class OpenUnit(Struct, frozen=True, kw_only=True):
    unit: UnitKey


class CloseUnit(Struct, frozen=True, kw_only=True):
    unit: UnitKey


class Grant(Struct, frozen=True, kw_only=True):
    """Let this request use the unit until it leaves."""

    id: int
    unit: UnitKey


class Refuse(Struct, frozen=True, kw_only=True):
    id: int
    error: MullamaError


class Cancel(Struct, frozen=True, kw_only=True):
    """End this running request, because the drain deadline of its unit passed."""

    id: int


class Settled(Struct, frozen=True, kw_only=True):
    """A pinned unit is open (error None) or failed to open."""

    unit: UnitKey
    error: MullamaError | None


class WakeAt(Struct, frozen=True, kw_only=True):
    when: float


class Evicted(Struct, frozen=True, kw_only=True):
    """Report that a unit is closed although its time to live has not passed. models: its names, for people."""

    models: str
    reason: str


Command = StartWorker | StopWorker | OpenUnit | CloseUnit | Evicted | Grant | Refuse | Cancel | Settled | WakeAt
