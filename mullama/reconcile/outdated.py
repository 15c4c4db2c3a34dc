"""Compares the files of each source with those that the source has now. Nothing is downloaded but metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest, Sources
from mullama.reconcile.files import wanted_kinds
from mullama.reconcile.includes import PinnedIncludes
from mullama.reconcile.lock import Lock, lockable
from mullama.sources.base import FetchRecord
from mullama.sources.library import Library
from mullama.store.lockfile import IncludePin
from mullama.struct import Struct
from mullama.weights.located import Located, LocatedFile
from mullama.weights.stored import LockEntry

_PARALLEL = 8

Freshness = Literal["current", "outdated", "unlocked", "unknown"]


class Compared(Struct, frozen=True, kw_only=True):
    """One source: the files that are used, and those that it has now."""

    source: str
    state: Freshness
    """unlocked: neither the lock file nor a download has its files. unknown: the source could not be compared."""
    before: LockEntry | FetchRecord | Located | None = None
    """The entry of the lock file, else the last download; for a remote file of `include` its pin."""
    now: Located | None = None
    reason: str = ""
    """The reason of `unknown`."""

    @property
    def changed(self) -> tuple[FileChange, ...]:
        """The files with other bytes."""
        return changed_files(self.before, self.now)


class FileSet(Protocol):
    """A set of files of one source."""

    @property
    def files(self) -> Sequence[NamedFile]: ...


class NamedFile(Protocol):
    """A file by its name at the source."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def digest(self) -> str | None: ...


class FileChange(Struct, frozen=True):
    """A file with other bytes; None where it does not exist."""

    name: str
    before: NamedFile | None
    now: NamedFile | None


def changed_files(before: FileSet | None, now: FileSet | None) -> tuple[FileChange, ...]:
    """Return the files with other bytes, in the order of their names."""
    old = {file.name: file for file in before.files} if before else {}
    new = {file.name: file for file in now.files} if now else {}
    found = (FileChange(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new))
    return tuple(f for f in found if f.before is None or f.now is None or f.before.digest != f.now.digest)


def compare(before: LockEntry | FetchRecord | Located | None, now: Located) -> Compared:
    """Return the state of a source. Equal files of a newer commit are current."""
    state: Freshness
    if any(not file.digest for file in now.files):
        state, reason = "unknown", "the source gives no digest"
    elif before is None:
        state, reason = "unlocked", ""
    else:
        state, reason = ("outdated" if changed_files(before, now) else "current"), ""
    return Compared(source=now.source, state=state, before=before, now=now, reason=reason)


def compare_all(library: Library, manifest: Manifest, lock: Lock) -> tuple[Compared, ...]:
    """Ask every source of a manifest that is not a file of this machine; sorted by source.

    A source that cannot be reached is unknown.
    """
    kinds = wanted_kinds(manifest.models.values())

    def one(source: str) -> Compared:
        before = lock.get(source) or library.fetched(source, wanted=kinds[source])
        return _asked(source, before, lambda: library.at_source(source, wanted=kinds[source]))

    with ThreadPoolExecutor(_PARALLEL) as threads:
        return tuple(threads.map(one, lockable(manifest)))


def compare_includes(files: PinnedIncludes, sources: Sources, pins: Mapping[str, IncludePin]) -> tuple[Compared, ...]:
    """Ask the repositories of the remote files of `include`, by the names with which `include` has them; sorted."""

    def one(spec: str) -> Compared:
        return _asked(spec, _one_file(spec, pins[spec]), lambda: _one_file(spec, files.newest(spec, sources)[0]))

    if not pins:
        return ()
    with ThreadPoolExecutor(_PARALLEL) as threads:
        return tuple(threads.map(one, sorted(pins)))


def _one_file(spec: str, pin: IncludePin) -> Located:
    name = spec.removeprefix("hf:").partition("@")[0].split("/", 2)[-1]
    file = LocatedFile(name=name, size=pin.size, digest=pin.digest)
    return Located(source=spec, resolved=spec, revision=pin.revision, files=(file,))


def _asked(source: str, before: LockEntry | FetchRecord | Located | None, ask: Callable[[], Located]) -> Compared:
    try:
        return compare(before, ask())
    except MullamaError as error:
        return Compared(source=source, state="unknown", before=before, reason=error.message)
