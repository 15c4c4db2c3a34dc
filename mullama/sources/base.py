"""The protocols of sources and of the stores that they use, and the progress of a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from mullama.names import SourceRef
from mullama.struct import Struct

if TYPE_CHECKING:  # a command that shows progress needs none of them
    from mullama.weights.facts import WeightFacts
    from mullama.weights.located import Located
    from mullama.weights.stored import PinnedFile, StoredWeights

Phase = Literal["found", "waiting", "resuming", "downloading", "verifying", "retrying", "sending", "done"]


class DownloadProgress(Struct, frozen=True, kw_only=True):
    """The progress of one file."""

    file: str
    phase: Phase
    completed: int = 0
    """Bytes so far."""
    total: int | None = None
    """The size in bytes; None while it is unknown."""
    resumed: int = 0
    """Bytes of an earlier try."""
    digest: str | None = None
    message: str = ""
    """The reason for another try."""
    wait: float = 0.0
    """Seconds until the next try."""
    origin: str = ""
    """The place that the bytes come from: `peer NAME`, or the host of an address; "" for a file of this machine."""


Report = Callable[[DownloadProgress], None]
Cancelled = Callable[[], bool]
Ref = TypeVar("Ref", bound=SourceRef, contravariant=True)


class Source(Protocol[Ref]):
    """Finds the files of the references of one scheme. `transfer` downloads them, whatever their scheme."""

    def locate(self, ref: Ref, cancelled: Cancelled) -> Located:
        """Return the files of a reference, as the source has them now.

        Raises `NotFound` with similar names, `Denied` with the places where a token was looked for, `Unavailable` when
        the source cannot be reached, `Unsupported` for files that cannot be run.
        """
        ...


class Receiver(Protocol):
    """Receives a download into a partial file; see `store.partial`."""

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
    """Keeps downloaded files by their digest; see `store.blobs`."""

    def path(self, digest: str) -> str: ...
    def has(self, digest: str) -> bool: ...
    def check_room(self, wanted: int) -> None: ...
    def fetched(self, identity: str) -> int: ...
    def receive(self, identity: str) -> AbstractContextManager[Receiver]: ...
    def set_aside(self, digest: str) -> None: ...
    def only_one(
        self, identity: str, cancelled: Cancelled, waiting: Callable[[], None]
    ) -> AbstractContextManager[None]: ...
    def using(self) -> AbstractContextManager[None]: ...


class FetchRecord(Protocol):
    """The files of a source at the time of its last download."""

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
    """Keeps digests, facts and sources; see `store.index`."""

    @property
    def blobs(self) -> BlobStore: ...
    def digest(self, path: str) -> str | None: ...
    def seen(self, path: str) -> bool: ...
    def stamp(self, path: str) -> str: ...
    def remember_digest(self, path: str, digest: str, stamp: str) -> None: ...
    def paths_of(self, digest: str) -> tuple[str, ...]: ...
    def facts(self, paths: Sequence[str]) -> WeightFacts | None: ...
    def remember_facts(self, paths: Sequence[str], facts: WeightFacts, stamps: Sequence[str]) -> None: ...
    def fetched(self, source: str) -> FetchRecord | None: ...
    def all_fetched(self) -> Sequence[FetchRecord]: ...
    def remember(self, stored: StoredWeights, now: float) -> None: ...


class ForeignStores(Protocol):
    """Reads the stores of other tools; see `store.foreign`."""

    def by_digest(self, digest: str, size: int | None) -> Iterator[str]:
        """Yield the files that the stores have under the name of this digest."""
        ...

    def declares(self, path: str) -> bool:
        """Return True for a GGUF file in a plain folder that the user has declared."""
        ...

    def of_size(self, size: int) -> tuple[str, ...]:
        """Return the files of this size whose digest is unknown."""
        ...

    def by_ref(self, ref: SourceRef, quants: tuple[str, ...] = ()) -> Located | None:
        """Return the files of a reference that another tool has downloaded completely; None for none."""
        ...
