"""The interface between the runtime and the HTTP server: callers, access, the service and the operator.

The server imports nothing else of the runtime, but for the values of `fleet`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mullama.chat.inventory import CreateModel, ModelStateReport, PullModel, TaskStatus
from mullama.chat.transcription import TranscriptEvent, TranscriptionRequest
from mullama.chat.types import ChatRequest, CompletionRequest, Event, Started
from mullama.dialects.base import Operation, Result
from mullama.dialects.rate_limits import RateReport
from mullama.dialects.stored_objects import StoredObject
from mullama.errors import Busy
from mullama.manifest.spec import Manifest
from mullama.names import JSONValue
from mullama.runtime.fleet import RolloutRecord
from mullama.struct import Struct
from mullama.trace_context import Span, TraceContext

if TYPE_CHECKING:
    from mullama.plan.quant_advice import Profile
    from mullama.store.usage import UsageQuery

Role = Literal["infer", "admin", "read", "files"]


class MemoryShare(Protocol):
    """The bytes that one request reserved."""

    def take(self, count: int) -> None:
        """Reserve more bytes, or raise `Unavailable`. A thread may call it."""
        ...


class RequestMemory(Protocol):
    """The memory for the bodies and the fetched media of all requests in progress."""

    def share(self) -> AbstractContextManager[MemoryShare]:
        """Return a share that the end of its block releases."""
        ...


class SentRequest(Struct, frozen=True, kw_only=True):
    """A request as it arrived, so that a captured one can be sent again."""

    path: str
    """With its query."""
    body: bytes


class MadeCall(Struct, frozen=True, kw_only=True):
    """A call of a tool that this server made for a model."""

    server: str
    """The name of the tool's server in the manifest."""
    name: str
    """The name of the tool at its server."""
    arguments: Mapping[str, JSONValue]
    text: str
    """The result, or the error, as the model reads it."""
    is_error: bool
    seconds: float


class Caller(Struct, frozen=True, kw_only=True):
    """The client of one request and its rights."""

    dialect: str
    request_id: str
    """For logs and errors."""
    key: str | None = None
    """The name of the API key; None when no key is declared."""
    models: tuple[str, ...] = ("*",)
    """Globs of model names."""
    roles: tuple[Role, ...] = ("infer", "admin", "read", "files")
    priority: int = 0
    """Higher is served first."""
    route: str = ""
    """The name that the request used, where a route with options leads to the model."""
    falls_back: bool = False
    """Another model of the route answers if this one is unavailable."""
    hops: tuple[str, ...] = ()
    """The ids of the servers that forwarded the request to this one."""
    trace: TraceContext | None = None
    """The place of the request in a trace."""
    memory: RequestMemory | None = None
    """None for calls of the program itself, which no bound protects."""
    sent: SentRequest | None = None
    """None if no bodies are captured, for an answer within a session, and for a turn after calls of tools."""
    turn: int = 0
    """Number of turns before this one that the answer has, with calls of tools between them."""
    spent: float = 0.0
    """Seconds of the model's time limit that these turns and calls took."""
    calls: tuple[MadeCall, ...] = ()
    """The calls that a person approved, which were made before the first turn."""

    def may_use(self, *names: str) -> bool:
        """Return True if the key may use a model by one of these names."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.models for name in names)


class KeyRecord(Struct, frozen=True, kw_only=True):
    """An API key with the SHA-256 of its secret, never the secret."""

    name: str
    sha256: bytes
    models: tuple[str, ...]
    roles: tuple[Role, ...]
    priority: int


class Access(Struct, frozen=True, kw_only=True):
    """The part of the live snapshot that the HTTP server needs; swapped as one value."""

    manifest: Manifest
    keys: tuple[KeyRecord, ...]
    generation: int


class Admission(Struct, frozen=True, kw_only=True):
    """The decision of the rate limits on one request."""

    report: RateReport
    refusal: Busy | None = None
    """The error of a request that is refused."""


class ApplyOptions(Struct, frozen=True, kw_only=True):
    """The options of one change."""

    allow_empty: bool = False
    """Allow a manifest without models."""
    expect: str | None = None
    """The revision that must be applied now; another one makes the plan stale."""
    offline: bool = False
    """Use no network."""
    locked: bool = False
    """Require every remote source in the lock file, or in the pins of the manifest."""
    prepare: bool = False
    """Fetch and check the files of the change, and change nothing."""
    targets: tuple[str, ...] = ()
    """The models and routes that the change is limited to; empty for the whole manifest."""
    trigger: Literal["apply", "watch", "signal", "start", "api", "undo", "retry", "drift"] = "apply"
    by: str = ""
    """The author, for history."""
    fence: int | None = None
    """The fence of the lease under which a fleet's controller makes the change; None for another change."""


UNDO = ApplyOptions(trigger="undo", allow_empty=True)
"""The options of a return to an earlier revision, which may be an empty one."""


class LeaseRequest(Struct, frozen=True, kw_only=True):
    """A controller asks a host for the lease of its fleet, or for a renewal."""

    holder: str
    """Names one run of a controller."""
    fleet: str
    seconds: float
    fence: int


class FleetLeases(Protocol):
    """The lease that lets one controller at a time change this host as a part of a fleet."""

    def tree(self) -> dict[str, Any]:
        """Return the highest fence and the lease in force in their published form."""
        ...

    def require(self, fence: int | None) -> None:
        """Raise `Conflict` for a fence below the highest one; None is the fence of a change outside a fleet."""
        ...

    async def take(self, request: LeaseRequest) -> dict[str, Any]:
        """Grant or renew the lease; return `tree`. Raises `Conflict` with the name of another holder."""
        ...

    async def release(self, holder: str) -> dict[str, Any]:
        """End the lease of this holder; return `tree`. Raises `Conflict` for that of another one."""
        ...


class FleetRollouts(Protocol):
    """The record of the last rollout of the fleet of this host."""

    @property
    def record(self) -> RolloutRecord | None: ...

    async def leave(self, record: RolloutRecord) -> None:
        """Keep a record, unless the present one is newer."""
        ...


class MetricsQuery(Struct, frozen=True, kw_only=True):
    """The part of the metrics of the last hour that is asked for."""

    since: float
    """Unix time in seconds."""
    step: float = 0.0
    """Seconds; 0 for one that fits the time."""
    model: str | None = None
    """The only model to list; None for all."""


class TextEdit(Struct, frozen=True, kw_only=True):
    """A text that replaces that of the followed manifest."""

    text: str
    digest: str
    """That of the text that was read and edited."""
    profiles: tuple[str, ...] | None = None
    """The profiles that the server follows from now on; None for its present ones."""


class Origin(Struct, frozen=True, kw_only=True):
    """The source of a manifest."""

    path: str | None = None
    """The file to watch; None for a manifest without one."""
    profiles: tuple[str, ...] = ()
    digest: str = ""
    """Of the content that was read."""
    checkout: str | None = None
    """The file in the checkout of a git repository that has the content; None for the content of `path`."""
    commit: str = ""
    """The commit of the checkout."""
    targets: tuple[str, ...] = ()
    """The models and routes that were applied of the manifest; empty for the whole one."""
    fleet: str = ""
    """The step of a fleet's apply that sent it, `NAME/FENCE.STEP`; empty for a manifest of this host alone."""

    @property
    def file(self) -> str | None:
        """The file that has the content. Its lock file is beside it."""
        return self.checkout or self.path


class Reload(Struct, frozen=True, kw_only=True):
    """The end of a reload of the watched file."""

    message: str = ""
    outcome: str = "applied"
    """As of an apply: `applied`, `partly_applied` or the kind of the error; `waiting` while files are downloaded."""


class Tracer(Protocol):
    """Takes the spans of requests for export."""

    @property
    def active(self) -> bool:
        """True while traces are exported."""
        ...

    def samples(self, trace_id: str) -> bool:
        """Return whether a trace that begins here is exported."""
        ...

    def add(self, *spans: Span) -> None:
        """Keep spans until they are exported, as far as there is room. Never blocks."""
        ...


class Service(Protocol):
    """The operations of requests. Every failure is a `MullamaError`."""

    def access(self) -> Access:
        """Return the live server settings and keys. Cheap: call it for each request."""
        ...

    def admit(self, operation: Operation, caller: Caller) -> Admission | None:
        """Decide by the rate limits on a request, and count it. None if no limit applies. Never blocks."""
        ...

    def default_model(self, caller: Caller) -> str:
        """Return the name of the model that answers this caller's requests without a model.

        Raises `Invalid` where the manifest has no route `default`, and the errors of any model's name.
        """
        ...

    def context_size(self, model: str) -> int:
        """Return the tokens that one request to the model may use; 0 when unknown."""
        ...

    def events(self, request: ChatRequest | CompletionRequest, caller: Caller) -> AsyncIterator[Sequence[Event]]:
        """Yield the events of one completion, in lists of those that arrived together.

        `Started` is the first event, `Completed` the last. Closing the iterator cancels the request at once. Errors
        with an HTTP status of their own (unknown model, overflow, full queue) are raised before `Started`.
        """
        ...

    def transcribe(
        self, request: TranscriptionRequest, caller: Caller
    ) -> AsyncIterator[Sequence[Started | TranscriptEvent]]:
        """Yield the text of a sound as it is written: `Started` first, `Transcribed` last. Otherwise as `events`."""
        ...

    async def answer(self, operation: Operation, caller: Caller) -> Result:
        """Return the result of any other operation, or of a completion that is not streamed."""
        ...

    def tasks(self, operation: PullModel | CreateModel, caller: Caller) -> AsyncIterator[TaskStatus]:
        """Yield the progress of a pull or create; the last status is `success`."""
        ...

    def watch(self, caller: Caller) -> AsyncIterator[ModelStateReport]:
        """Yield the state of each model that the caller may use, then every change of it; endless."""
        ...

    async def store(self, stored: StoredObject, caller: Caller) -> None:
        """Store or replace an object for later requests of the same key, within the limits of the manifest."""
        ...

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        """Store an uploaded blob; return False if it was stored before. Raises `Invalid` for another digest."""
        ...


class Operator(Protocol):
    """The operations of an administrator on the complete stack. Trees are the published JSON forms."""

    def status(self) -> dict[str, Any]:
        """Return `{"format": "mullama.status/1", …}`. Never blocks."""
        ...

    async def look_at_files(self) -> None:
        """Look at the files of the served models for `status`. Waits for a slow file system for a short time only."""
        ...

    def stack(self) -> dict[str, Any]:
        """Return the revision's number and digest (the ETag), the resolved manifest and its origin."""
        ...

    async def usage(self, query: UsageQuery) -> list[dict[str, Any]]:
        """Return the sums of requests and tokens, see `store.usage.UsageFile.read`."""
        ...

    def metrics_history(self, query: MetricsQuery) -> dict[str, Any]:
        """Return `{"format": "mullama.metrics/1", …}`: the metrics of the last hour in steps."""
        ...

    async def key_report(self) -> dict[str, Any]:
        """Return `{"format": "mullama.keys/1", …}`: the declared API keys with their use, without secrets."""
        ...

    async def search_hub(self, query: str, *, limit: int, every: bool) -> list[dict[str, Any]]:
        """Return the repositories of the hub that match. Raises `Unavailable` without a network."""
        ...

    async def hub_advice(self, source: str, *, context: int, profile: Profile) -> dict[str, Any]:
        """Return `{"format": "mullama.hub/1", …}`: a repository and how well its files fit this machine."""
        ...

    def captures(self) -> list[dict[str, Any]]:
        """Return the captured requests without their texts, newest first."""
        ...

    def capture(self, id: int) -> dict[str, Any]:
        """Return a captured request with its prompt and answer. Raises `NotFound` for one that is not kept."""
        ...

    async def model(self, name: str, *, paths: bool) -> dict[str, Any]:
        """Return `{"format": "mullama.model/1", …}` of a model or route: values, files, contexts, worker.

        paths: with the places of its files on this machine. Raises `NotFound` with similar names.
        """
        ...

    async def worker_log(self, name: str) -> dict[str, Any]:
        """Return the end of the engine's log and of the output of a model's worker. Raises `NotFound` without one."""
        ...

    def open_file(self, digest: str) -> int:
        """Return a descriptor of the stored file with this digest, for reading. Raises `NotFound`. Reads the disk."""
        ...

    def live(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the status and the events, then what changes, each update with an `id`; endless."""
        ...

    def follow_captures(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield captured requests after that `id`, without their texts; endless."""
        ...

    def git_notice(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Look at the git repository at once. Raises `NotFound` without one, `Denied` for a request of anybody else."""
        ...

    def missing(self) -> tuple[str, ...]:
        """Return the models that load at start and are not loaded yet; empty means ready."""
        ...

    async def plan(self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions) -> dict[str, Any]:
        """Return the plan for this resolved manifest against this server, in its JSON form.

        origin: an empty one means the origin of the applied manifest, whose lock file is used then.

        Raises what the options forbid, as `apply` would.
        """
        ...

    def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncIterator[dict[str, Any]]:
        """Apply this resolved manifest; yield lines of progress, `{"event": "result", "outcome": str, …}` last."""
        ...

    async def reload(self, reason: str) -> dict[str, Any]:
        """Read the watched file now; return `{"changed": bool}` and the fields of `Reload`."""
        ...

    async def manifest_text(self) -> dict[str, Any]:
        """Return the text of the followed manifest, its digest, and why it cannot be saved ("" if it can)."""
        ...

    async def plan_text(self, text: str, profiles: tuple[str, ...] | None) -> dict[str, Any]:
        """Return the mistakes of a text of the followed manifest, and its plan where there are none."""
        ...

    def save_text(self, edit: TextEdit, options: ApplyOptions) -> AsyncIterator[dict[str, Any]]:
        """Save a text in place of the one that was read, and apply it; lines as `apply`.

        Raises `Conflict` for a file that was changed since. A change that is refused saves nothing.
        """
        ...

    def history(self) -> list[dict[str, Any]]:
        """The last revisions, newest first."""
        ...

    async def compare_revisions(self, before: int, after: int) -> dict[str, Any]:
        """Return the texts of two revisions and the plan from one to the other. Raises `NotFound`."""
        ...

    async def plan_undo(self, to: int | None) -> dict[str, Any]:
        """Return the plan of `undo`. Raises `NotFound` for a revision that is not kept."""
        ...

    async def drift(self) -> dict[str, Any]:
        """Return the plan from the observed state to the applied revision."""
        ...

    async def refresh(self) -> dict[str, Any]:
        """Record the files of the served models as they are now; return the plan of `drift`. Changes no model."""
        ...

    def undo(self, to: int | None, options: ApplyOptions, fleet: str = "") -> AsyncIterator[dict[str, Any]]:
        """Apply the manifest of an old revision as a new revision; lines as `apply`.

        options: their trigger is undo. fleet: see `Origin.fleet`.
        """
        ...

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield events of the stack after that `id`; endless."""
        ...

    @property
    def leases(self) -> FleetLeases: ...

    @property
    def rollouts(self) -> FleetRollouts: ...

    async def fleet(self) -> dict[str, Any]:
        """Return `{"format": "mullama.fleet-view/1", …}`: all hosts of the fleet as this one sees them."""
        ...

    @property
    def started(self) -> int:
        """The Unix time of the start, in whole seconds."""
        ...

    def metrics(self, model: str = "") -> str:
        """Return the metrics in the Prometheus text format 0.0.4; llama-server's series of one model if it is named."""
        ...

    def stop(self) -> None:
        """Begin an orderly end: refuse new requests, drain, unload, exit."""
        ...
