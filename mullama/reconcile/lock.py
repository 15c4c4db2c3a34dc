"""The lock file of a manifest: the sources it must have, their entries, and its writing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from mullama.errors import MullamaError, NotFound, Refused
from mullama.manifest.spec import LockedSource, Manifest, Model
from mullama.names import LOCK_NAME, PathRef, parse_source
from mullama.plan.tools import ToolPins
from mullama.reconcile.files import is_local
from mullama.reconcile.pins import lock_path
from mullama.reconcile.scripted_models import is_script
from mullama.sources.base import Report
from mullama.sources.library import Library
from mullama.sources.registry import Wanted
from mullama.sources.settings import Settings
from mullama.store import lockfile
from mullama.store.disk import write_atomic
from mullama.store.lockfile import IncludePin
from mullama.weights import record
from mullama.weights.located import Located
from mullama.weights.stored import LockEntry, PinnedFile, StoredWeights

Lock = Mapping[str, LockEntry]


def lockable(manifest: Manifest) -> tuple[str, ...]:
    """Return the sources of models and adapters that need an entry, sorted. Files of this machine need none."""
    return tuple(sorted({source for model in manifest.models.values() for source in _sources(model)}))


def _sources(model: Model) -> Iterator[str]:
    sources = model.all_sources
    return (source for source in sources if not is_local(source))


def missing(manifest: Manifest, lock: Collection[str]) -> tuple[str, ...]:
    """Return the sources without a lock entry."""
    return tuple(source for source in lockable(manifest) if source not in lock)


def superfluous(manifest: Manifest, lock: Lock) -> tuple[str, ...]:
    """Return the sources of lock entries that no model uses."""
    return tuple(sorted(lock.keys() - set(lockable(manifest))))


def require_locked(manifest: Manifest, lock: Collection[str]) -> None:
    """Raise `Refused` for a source without a lock entry."""
    if absent := missing(manifest, lock):
        raise Refused(
            f"--locked: {LOCK_NAME} lacks {', '.join(absent[:5])}{' and more' if len(absent) > 5 else ''}",
            hint="mullama lock adds them",
        )


def require_pins(fleet: Manifest, lock: Lock) -> None:
    """Raise `Refused` for a source of a fleet that may stand for different bytes on its hosts.

    A source of a network needs an entry in the lock file or in the manifest, and a path of the hosts a digest.
    """
    require_locked(fleet, {*lock, *fleet.lock.sources})
    for name, model in fleet.models.items():
        pinned = {model.from_: model.digest, **{adapter.from_: adapter.digest for adapter in model.adapters}}
        for source in model.all_sources:
            if isinstance(parse_source(source), PathRef) and not is_script(source) and not pinned.get(source):
                raise Refused(
                    f"--locked: {source} of models.{name} is a path of each host, and has no digest",
                    hint="add its digest, or use a source that mullama lock pins",
                )


def with_lock(manifest: Manifest, lock: Lock, tools: Mapping[str, ToolPins]) -> Manifest:
    """Return a manifest with the pins of a lock file that it uses, as far as it has none of its own."""
    trees = {source: lockfile.entry_tree(lock[source]) for source in lockable(manifest) if source in lock}
    sources = {source: LockedSource.model_validate(tree) for source, tree in trees.items()}
    servers = {server: dict(tools[server]) for server in manifest.mcp if server in tools}
    found = {"sources": {**sources, **manifest.lock.sources}, "tools": {**servers, **manifest.lock.tools}}
    return manifest.model_copy(update={"lock": manifest.lock.model_copy(update=found)})


def sources_of(manifest: Manifest, names: tuple[str, ...]) -> frozenset[str]:
    """Return the sources of named models that need a lock entry; all without names.

    Raises `NotFound` for a name that is no model.
    """
    unknown = [name for name in names if name not in manifest.models]
    if unknown:
        raise NotFound(f"the manifest has no model {unknown[0]!r}", name=unknown[0])
    every = frozenset(lockable(manifest))
    return every & {source for name in names for source in _sources(manifest.models[name])} if names else every


def resolve(
    library: Library,
    settings: Settings,
    source: str,
    *,
    offline: bool,
    refresh: bool,
    report: Report,
    wanted: Wanted = "weights",
) -> tuple[LockEntry, tuple[str, ...]]:
    """Return the entry of a source as it is now, with warnings. Downloads files whose source gives no digest."""
    located = library.locate(source, None, offline, wanted=wanted, refresh=refresh)
    if any(file.path or not file.digest or not file.size for file in located.files):
        stored = library.ensure(located, report, lambda: False, wanted=wanted, offline=offline)
        return stored.lock_entry(record.for_lock(stored.facts)), stored.warnings
    return _entry(library, settings, located, wanted), located.warnings


def _entry(library: Library, settings: Settings, located: Located, wanted: Wanted) -> LockEntry:
    pins = tuple(PinnedFile(name=f.name, size=f.size or 0, digest=f.digest or "", role=f.role) for f in located.files)
    entry = LockEntry(
        source=located.source, resolved=located.resolved, revision=located.revision, files=pins,
        license=located.license,
    )  # fmt: skip
    if (stored := _stored(library, entry, wanted)) is not None:
        facts, projector = stored.facts, stored.projector.facts if stored.projector else None
    else:
        from mullama.sources.gguf_headers import remote_facts  # with the HTTP client, which a start does not need

        weights, beside = ([file for file in located.files if file.role == role] for role in ("weights", "projector"))
        facts = remote_facts(weights, settings, lambda: False)
        projector = remote_facts(beside[:1], settings, lambda: False).projector if beside else None
    return LockEntry(
        source=entry.source, resolved=entry.resolved, revision=entry.revision, files=pins,
        facts=record.for_lock(facts), license=entry.license, projector=projector,
    )  # fmt: skip


def _stored(library: Library, entry: LockEntry, wanted: Wanted) -> StoredWeights | None:
    """Return the stored files of an entry; None for files that are not stored or cannot be read."""
    with suppress(MullamaError):  # the headers of damaged files are read at the source
        if here := library.here(entry.source, entry, wanted=wanted, planning=True):
            return library.stored(here, entry.source, wanted=wanted)
    return None


def write_lock(
    manifest_path: str,
    lock: Lock,
    includes: Mapping[str, IncludePin] | None = None,
    tools: Mapping[str, ToolPins] | None = None,
) -> None:
    """Write the lock file next to the manifest, atomically.

    includes: the pins of the remote files of `include`. tools: those of each server of tools.
    """
    write_atomic(lock_path(manifest_path), lockfile.render(lock, includes, tools).encode())
    lock_path(manifest_path).chmod(0o644)
