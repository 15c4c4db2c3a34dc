"""What the policy is told and what it commands, as values; times are monotonic seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mullama.errors import MullamaError

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class UnitKey:
    """One context over one set of weights; both parts are digests of everything that makes them what they are."""

    weights: str
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What the policy must know of a model. ttl, timeouts: seconds; bytes: memory it will need."""

    name: str
    unit: UnitKey
    parallel: int = 1
    queue: int = 64
    queue_timeout: float = 30.0
    ttl: float = FOREVER
    priority: int = 0
    at_start: bool = True
    drain_timeout: float = 120.0
    weights_bytes: int = 0
    context_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds over all models; budget in bytes, None for no bound."""

    concurrency: int = 64
    queue: int = 256
    budget: int | None = None


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """From now on names lead to these units: the new snapshot. moved: old name → new name of renamed models."""

    models: Mapping[str, Serve]
    rules: Rules
    moved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The reconciler wants this unit open before the swap; `Settled` tells when it is, or why not."""

    serve: Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpin:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """No request of this model is admitted and its unit may close: there is no room for two."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: int
    model: str
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The request ended, in whatever way, or its client left the queue."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTtl:
    """Keep the model for so many seconds after its last use: 0 lets it go now, infinity never, None as declared.

    forced: end its requests, too, and refuse those that wait for it.
    """

    model: str
    seconds: float | None
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """It could not start (`permanent`: the file itself is at fault) or it died."""

    weights: str
    error: MullamaError
    permanent: bool = False


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
    """Forget the failures of a model: a person asked, or the manifest changed."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Orderly end: nothing new is admitted, everything closes when its last request is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed."""


Event = (
    Swap | Pin | Unpin | Pause | Resume | Request | Leave | SetTtl | WorkerReady | WorkerLost
    | WorkerStopped | UnitOpened | UnitFailed | UnitClosed | Retry | Stop | Tick
)  # fmt: skip


# Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker:
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenUnit:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseUnit:
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """This request may use the unit until it leaves."""

    id: int
    unit: UnitKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    id: int
    error: MullamaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End this running request: its drain deadline passed."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A held unit is open (error None) or will not open."""

    unit: UnitKey
    error: MullamaError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    when: float


Command = StartWorker | StopWorker | OpenUnit | CloseUnit | Grant | Refuse | Cancel | Settled | WakeAt
