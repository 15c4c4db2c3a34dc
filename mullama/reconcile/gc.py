"""Which stored files must stay: what a generation, overlay or lock file of any server that uses the store means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.names import Digest
from mullama.reconcile import references
from mullama.reconcile.files import Files, read_lock
from mullama.store.index import Index
from mullama.store.records import Records, Revision, instances
from mullama.weights.stored import LockEntry

LEAST_GRACE = 600.0  # seconds


def referenced(root: Path, index: Index, *, history: bool) -> frozenset[str]:
    """Digests of the files that the generation, the overlay and the lock file of every instance mean.

    Those under other state folders that use the same store count too: see `claims`. root: the folder of all instances
    of this user. history: count older generations too, whose files `undo` wants to find.
    """
    found = own(root, index, history=history)
    for claim in references.others(root, index.blobs.root):
        found |= own(claim.state, index, history=True) if claim.here else claim.digests
    return found


def declare(root: Path, index: Index) -> None:
    """Let other state folders that use the same store know what this one refers to."""
    with suppress(OSError):  # where the store cannot be written to, nothing can be deleted from it either
        references.declare(root, index.blobs.root, own(root, index, history=True))


def own(root: Path, index: Index, *, history: bool) -> frozenset[str]:
    """What the instances under this one folder mean. A file in the store may be named by its path."""
    sources: set[str] = set()
    digests: set[str] = set()
    for records in instances(root):
        for generation in records.history()[: None if history else 1]:
            sources |= set(_sources(generation.manifest.get("models") or {}))
        sources |= set(_sources(records.overlay()))
        digests |= _locked(records)
    digests |= {file.digest for source in sources for file in _files(index, source)}
    digests |= {digest for source in sources if (digest := in_store(index, source))}
    return frozenset(digests)


def prunable(desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry]) -> tuple[tuple[str, int], ...]:
    """What a prune deletes, by digest with its bytes: files of our store that were not used for `prune.keep`.

    root: the folder of all instances. Nothing where the wish does not ask for it.
    """
    if not desired.prune.files:
        return ()
    return files.index.blobs.swept(_needed(desired, root, files, lock), grace=_grace(desired))


def prune(
    desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry], shown: frozenset[str]
) -> tuple[str, ...]:
    """Delete those of the files that were shown which are still unneeded; their digests."""
    every = frozenset(digest for digest, _, _ in files.index.blobs.listed())
    kept = _needed(desired, root, files, lock) | (every - shown)
    gone = files.index.blobs.sweep(kept, grace=_grace(desired))
    for entry in files.index.all_fetched():
        if any(file.digest in gone for file in entry.files):
            files.index.forget(entry.source)
    return gone


def _needed(desired: Manifest, root: Path, files: Files, lock: Mapping[str, LockEntry]) -> frozenset[str]:
    """What was applied, and what is about to be."""
    index = files.index
    sources = {model.from_ for model in desired.models.values()}
    ahead = {file.digest for source in sources for file in _files(index, source)}
    ahead |= {digest for source in sources if (digest := in_store(index, source))}
    ahead |= {file.digest for entry in lock.values() for file in entry.files}
    return referenced(root, index, history=True) | ahead


def _grace(desired: Manifest) -> float:
    """Never less than what another server may take between a fetch and its commit."""
    return max(desired.prune.keep, LEAST_GRACE)


def in_store(index: Index, source: str) -> str | None:
    """The digest of a source that is a path into the store, as uploads and quantised models are."""
    path = Path(source)
    if path.parent != index.blobs.root / "blobs" or not path.name.startswith("sha256-"):
        return None
    with suppress(MullamaError):
        return Digest.parse(path.name.replace("-", ":", 1)).text
    return None


def _files(index: Index, source: str) -> Iterator[Any]:
    """The files of a source as they were fetched, however the index spells it."""
    from mullama.sources.library import spellings

    for spelling in spellings(source):
        if entry := index.fetched(spelling):
            yield from entry.files


def _sources(models: Mapping[str, Any]) -> Iterable[str]:
    """Every source text in the trees of models: weights, adapters, projectors, drafts."""
    for tree in models.values():
        texts = [tree.get("from"), tree.get("mmproj"), tree.get("draft")]
        texts += [adapter.get("from") for adapter in tree.get("adapters") or () if isinstance(adapter, Mapping)]
        yield from (text for text in texts if isinstance(text, str))


def _locked(records: Records) -> set[str]:
    """The digests of the lock files beside the manifests that this instance has applied."""
    paths = {str(path) for generation in records.history() if (path := _path(generation))}
    found: set[str] = set()
    for path in paths:
        with suppress(OSError):
            found |= {file.digest for entry in read_lock(path).values() for file in entry.files}
    return found


def _path(generation: Revision) -> str | None:
    path = generation.origin.get("path")
    return path if isinstance(path, str) else None
