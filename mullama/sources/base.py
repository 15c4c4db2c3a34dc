"""The seam of sources: where the files behind a source text are, and the little that fetching needs to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from mullama.names import SourceRef

if TYPE_CHECKING:  # a command that shows progress needs none of them
    from mullama.weights.facts import WeightFacts
    from mullama.weights.located import Located
    from mullama.weights.stored import PinnedFile, StoredWeights

Phase = Literal["found", "waiting", "resuming", "downloading", "verifying", "retrying", "sending", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress:
    """One line about one file. completed, total, resumed: bytes; total is None where nobody said.

    retrying: `message` says why and `wait` how many seconds remain.
    """

    file: str
    phase: Phase
    completed: int = 0
    total: int | None = None
    resumed: int = 0
    digest: str | None = None
    message: str = ""
    wait: float = 0.0


Report = Callable[[DownloadProgress], None]
Cancelled = Callable[[], bool]
Ref = TypeVar("Ref", bound=SourceRef, contravariant=True)


class Source(Protocol[Ref]):
    """One scheme: finds the files of a reference. Fetching them is the same for all (see `transfer`)."""

    def locate(self, ref: Ref, cancelled: Cancelled) -> Located:
        """Ask the source now. Raises `NotFound` with near names, `Denied` that says where a token was looked
        for, `Unavailable` when it cannot be reached, `Unsupported` for files that cannot be run."""
        ...


class Receiver(Protocol):
    """A partial file that a download is written to."""

    @property
    def offset(self) -> int: ...
    @property
    def hashed(self) -> int: ...
    @property
    def validator(self) -> str: ...
    def settled(self, seconds: float) -> bool: ...
    def remember(self, validator: str, total: int) -> None: ...
    def write(self, data: bytes) -> None: ...
    def restart(self) -> None: ...
    def digest(self) -> str: ...
    def promote(self) -> str: ...
    def discard(self) -> None: ...


class BlobStore(Protocol):
    """Where fetched files go: content-addressed, checked before they are visible."""

    def path(self, digest: str) -> str: ...
    def has(self, digest: str) -> bool: ...
    def check_room(self, wanted: int) -> None: ...
    def fetched(self, identity: str) -> int: ...
    def receive(self, identity: str) -> AbstractContextManager[Receiver]: ...
    def only_one(
        self, identity: str, cancelled: Cancelled, waiting: Callable[[], None]
    ) -> AbstractContextManager[None]: ...
    def using(self) -> AbstractContextManager[None]: ...


class FetchRecord(Protocol):
    """What a source text stood for when it was fetched."""

    @property
    def source(self) -> str: ...
    @property
    def resolved(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def license(self) -> str: ...
    @property
    def files(self) -> tuple[PinnedFile, ...]: ...


class FileIndex(Protocol):
    """What was learnt before: about files, and about sources (the store's index)."""

    @property
    def blobs(self) -> BlobStore: ...
    def digest(self, path: str) -> str | None: ...
    def remember_digest(self, path: str, digest: str) -> None: ...
    def paths_of(self, digest: str) -> tuple[str, ...]: ...
    def facts(self, paths: Sequence[str]) -> WeightFacts | None: ...
    def remember_facts(self, paths: Sequence[str], facts: WeightFacts) -> None: ...
    def fetched(self, source: str) -> FetchRecord | None: ...
    def all_fetched(self) -> Sequence[FetchRecord]: ...
    def remember(self, stored: StoredWeights, now: float) -> None: ...


class ForeignStores(Protocol):
    """Stores of other tools: looked into, never written."""

    def by_digest(self, digest: str, size: int | None) -> str | None:
        """The path of a file that its owner keeps under this digest."""
        ...

    def of_size(self, size: int) -> tuple[str, ...]:
        """Files without a known digest that could be the one that is wanted."""
        ...

    def by_ref(self, ref: SourceRef, quants: tuple[str, ...] = ()) -> Located | None:
        """The files behind a reference, all of them in place, when another tool has fetched it."""
        ...
