"""The stored files that a prune keeps: those of a revision, overlay or lock file of any server that uses the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.names import Digest
from mullama.reconcile import references
from mullama.reconcile.files import Files
from mullama.reconcile.pins import read_lock
from mullama.store.index import Fetched, Index
from mullama.store.records import Records, Revision, instances
from mullama.struct import Struct
from mullama.weights.stored import LockEntry

LEAST_GRACE = 600.0  # seconds


def referenced(root: Path, index: Index, *, history: bool) -> frozenset[str]:
    """Return the digests of the files of all instances: of their revisions, overlays and lock files.

    The instances in other state folders that use the same store count, too: see `references`. root: the folder of all
    instances of this user. history: include older revisions, whose files `undo` needs.
    """
    found = referenced_by(root, index, history=history)
    for claim in references.others(root, index.blobs.root):
        found |= referenced_by(claim.state, index, history=True) if claim.here else claim.digests
    return found


def declare(root: Path, index: Index) -> None:
    """Write the list of referenced files for other state folders that use the same store."""
    with suppress(OSError):  # nothing can be deleted from a read-only store
        references.declare(root, index.blobs.root, referenced_by(root, index, history=True))


def referenced_by(root: Path, index: Index, *, history: bool) -> frozenset[str]:
    """Return the digests of the files of the instances in one folder. A source may be the path of a stored file."""
    sources: set[str] = set()
    digests: set[str] = set()
    for records in instances(root):
        for revision in records.history()[: None if history else 1]:
            sources |= set(_sources(revision.manifest.get("models") or {}))
        sources |= set(_sources(records.overlay()))
        digests |= _locked(records)
    digests |= {file.digest for source in sources for file in _files(index, source)}
    digests |= {digest for source in sources if (digest := in_store(index, source))}
    return frozenset(digests)


class User(Struct, frozen=True, kw_only=True):
    """A model that needs the files of a source, or a state folder whose models cannot be read here."""

    name: str
    declared: bool
    """True for a model of a manifest, False for one that a command added."""


def users_of(root: Path, index: Index, entry: Fetched) -> tuple[User, ...]:
    """Return what needs the files of a source: models of applied manifests and overlays, and unreadable folders.

    root: the folder of all instances of this user.
    """
    from mullama.sources.library import spellings

    found: dict[User, None] = {}
    claims = list(references.others(root, index.blobs.root))
    for folder in (root, *(claim.state for claim in claims if claim.here)):
        for records in instances(folder):
            overlay, last = records.overlay(), records.last()
            models = {**((last.manifest.get("models") or {}) if last else {}), **overlay}
            for name, tree in models.items():
                sources = _sources({name: tree})
                if any(entry.source in spellings(source) for source in sources):
                    found[User(name=name, declared=name not in overlay)] = None
    for claim in claims:
        if not claim.here and claim.digests & {file.digest for file in entry.files}:
            found[User(name=f"the state folder {claim.state}", declared=True)] = None
    return tuple(found)


def prunable(desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry]) -> tuple[tuple[str, int], ...]:
    """Return the digests and bytes of the files that a prune deletes: unreferenced for longer than `prune.keep`.

    root: the folder of all instances. Returns none unless the manifest has `prune.files`.
    """
    if not desired.prune.files:
        return ()
    return files.index.blobs.swept(_referenced_files(desired, root, files, lock), grace=_grace(desired))


def prune(
    desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry], shown: frozenset[str]
) -> tuple[str, ...]:
    """Delete the listed files that are still unreferenced, and return their digests."""
    every = frozenset(digest for digest, _, _ in files.index.blobs.listed())
    kept = _referenced_files(desired, root, files, lock) | (every - shown)
    deleted = files.index.blobs.sweep(kept, grace=_grace(desired))
    for entry in files.index.all_fetched():
        if any(file.digest in deleted for file in entry.files):
            files.index.forget(entry.source)
    return deleted


def _referenced_files(desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry]) -> frozenset[str]:
    """Return the digests of the files of applied and of desired models."""
    index = files.index
    models = desired.models.values()
    sources = {source for model in models for source in model.all_sources}
    desired_files = {file.digest for source in sources for file in _files(index, source)}
    desired_files |= {digest for source in sources if (digest := in_store(index, source))}
    desired_files |= {file.digest for entry in lock.values() for file in entry.files}
    return referenced(root, index, history=True) | desired_files


def _grace(desired: Manifest) -> float:
    """Return the seconds without use after which a file may be deleted.

    It is at least the time that another server may need between a download and its commit.
    """
    return max(desired.prune.keep, LEAST_GRACE)


def in_store(index: Index, source: str) -> str | None:
    """Return the digest of a source that is a path in the store, as uploads and quantised models are; else None."""
    path = Path(source)
    if path.parent != index.blobs.root / "blobs" or not path.name.startswith("sha256-"):
        return None
    with suppress(MullamaError):
        return Digest.parse(path.name.replace("-", ":", 1)).text
    return None


def _files(index: Index, source: str) -> Iterator[Any]:
    """Yield the files of a source at its last download, for every spelling of it."""
    from mullama.sources.library import spellings

    for spelling in spellings(source):
        if entry := index.fetched(spelling):
            yield from entry.files


def _sources(models: Mapping[str, Any]) -> Iterable[str]:
    """Yield every source in the trees of models: weights, adapters, projectors, drafts."""
    for tree in models.values():
        draft = tree.get("draft")
        texts = [tree.get("from"), tree.get("mmproj"), draft.get("from") if isinstance(draft, Mapping) else draft]
        texts += [adapter.get("from") for adapter in tree.get("adapters") or () if isinstance(adapter, Mapping)]
        yield from (text for text in texts if isinstance(text, str))


def _locked(records: Records) -> set[str]:
    """Return the digests that the manifests of an instance pin, and the lock files next to them."""
    paths = {str(path) for revision in records.history() if (path := _path(revision))}
    found: set[str] = set()
    for path in paths:
        with suppress(OSError):
            found |= {file.digest for entry in read_lock(path).values() for file in entry.files}
    for revision in records.history():
        pins = revision.manifest.get("lock", {}).get("sources", {}).values()
        found |= {file["digest"] for pin in pins for file in pin.get("files", ())}
    return found


def _path(revision: Revision) -> str | None:
    path = revision.origin.get("path")
    return path if isinstance(path, str) else None
