"""What the runtime promises to the HTTP server: callers, the service, and the operator's view of it.

The server knows these names and nothing else of the runtime; tests of the server use a small real implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mullama.chat.inventory import CreateModel, PullModel, TaskStatus
from mullama.chat.types import ChatRequest, CompletionRequest, Event
from mullama.dialects.base import Operation, Result, StoredResponse
from mullama.manifest.spec import Manifest

Role = Literal["infer", "admin", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the dialect's name, the name of the API key (None when none is declared), and its rights.

    models: globs of model names. priority: higher is served first. request_id: for logs and errors.
    """

    dialect: str
    request_id: str
    key: str | None = None
    models: tuple[str, ...] = ("*",)
    roles: tuple[Role, ...] = ("infer", "admin", "read")
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """An API key as the guard compares it: SHA-256 of the secret, never the secret."""

    name: str
    sha256: bytes
    models: tuple[str, ...]
    roles: tuple[Role, ...]
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the guard needs of the live snapshot; swapped as one value on a reload."""

    manifest: Manifest
    keys: tuple[KeyRecord, ...]
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """What a person may allow beyond the ordinary. `expect`: the revision that must be applied now (stale plan)."""

    allow_empty: bool = False
    expect: str | None = None
    offline: bool = False
    locked: bool = False
    trigger: Literal["apply", "watch", "signal", "start", "api", "undo"] = "apply"
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a manifest came from: the file to watch, the profiles it was read with, the digest of what was read."""

    path: str | None = None
    profiles: tuple[str, ...] = ()
    digest: str = ""


class Service(Protocol):
    """What a request may do. Every failure is a `MullamaError`."""

    def access(self) -> Access:
        """The live snapshot's server settings, keys and limits; cheap, call it per request."""
        ...

    def context_size(self, model: str) -> int:
        """What one request to the model may use, 0 when unknown."""
        ...

    def events(self, request: ChatRequest | CompletionRequest, caller: Caller) -> AsyncIterator[Sequence[Event]]:
        """Events of one generation, `Started` first, `Completed` last; those that came together are one value.

        Closing the iterator cancels the request at once.

        Raises before `Started` for everything that deserves an HTTP status (unknown model, overflow, queue full).
        """
        ...

    async def answer(self, operation: Operation, caller: Caller) -> Result:
        """Any other operation, or a generation that is not streamed, folded into its result."""
        ...

    def tasks(self, operation: PullModel | CreateModel, caller: Caller) -> AsyncIterator[TaskStatus]:
        """Progress of a pull or create; the last status is `success`."""
        ...

    def keep(self, response: StoredResponse, caller: Caller) -> None:
        """Remember a response (Responses API) for later requests of the same caller; bounded, oldest go first."""
        ...

    async def receive_blob(self, digest: str, chunks: AsyncIterator[bytes], caller: Caller) -> bool:
        """Store an uploaded blob; False when it was there already. Raises Invalid on a mismatch."""
        ...


class Operator(Protocol):
    """What an administrator may do and see: the stack as a whole. Trees are the published JSON forms."""

    def status(self) -> dict[str, Any]:
        """`{"format": "mullama.status/1", …}`: built from immutable values, never blocks."""
        ...

    def stack(self) -> dict[str, Any]:
        """Generation, revision (the ETag), the resolved manifest and its origin."""
        ...

    def missing(self) -> tuple[str, ...]:
        """at_start models that are not loaded yet: empty means ready."""
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
        """Make it so; yields progress lines, the last of which is `{"event": "result", "outcome": str, …}`."""
        ...

    async def reload(self, reason: str) -> dict[str, Any]:
        """Read the watched file again now; what came of it."""
        ...

    def history(self) -> list[dict[str, Any]]:
        """The last revisions, newest first."""
        ...

    def undo(self, to: int | None) -> AsyncIterator[dict[str, Any]]:
        """Apply the manifest of an old revision as a new revision; lines as `apply`."""
        ...

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Events of the stack with increasing `id`, beginning after that id; never ends by itself."""
        ...

    def metrics(self) -> str:
        """Prometheus text format 0.0.4."""
        ...

    def stop(self) -> None:
        """Begin an orderly end: no new requests, drain, unload, exit."""
        ...
