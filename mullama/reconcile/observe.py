"""Observes what is applied, what is stored, and what the machine has. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import Applied, KnownFiles, Observed
from mullama.reconcile.files import Files
from mullama.reconcile.gc import prunable
from mullama.reconcile.machine import observe_machine
from mullama.reconcile.overlay import split
from mullama.store.records import Records
from mullama.struct import replace
from mullama.weights.stored import LockEntry


def observe(desired: Manifest, records: Records, files: Files, lock: Mapping[str, LockEntry]) -> Observed:
    """Return what is known without a server: from the records and the store. desired: with the overlay."""
    applied = last_applied(records)
    manifests = [desired, *([applied.manifest] if applied else [])]
    return Observed(
        applied=applied, live=None, files=with_use(files.known(manifests, lock), manifests, records),
        machine=observe_machine(desired.hardware),
        unneeded=prunable(desired, records.folder.parent, files, lock),
    )  # fmt: skip


def with_use(files: Mapping[str, KnownFiles], manifests: Iterable[Manifest], records: Records) -> dict[str, KnownFiles]:
    """Return the files with what requests to them have used at once, as the contexts of this instance observed it."""
    models = [model for manifest in manifests for model in manifest.models.values()]
    sources = {model.from_ for model in models if model.context.pool == "auto"}
    if not sources:
        return dict(files)
    from mullama.engines.observed_use import read_use, use_path  # needed for automatic pools only

    def used(known: KnownFiles) -> int:
        return read_use(use_path(records.prefix_folder, known.digest)) if known.digest else 0

    return {s: replace(known, used=used(known)) if s in sources else known for s, known in files.items()}


def last_applied(records: Records) -> Applied | None:
    """Return the last committed revision; None without one, or for one that this version cannot read."""
    last = records.last()
    if last is None:
        return None
    try:
        manifest = parse_resolved(last.manifest)
    except MullamaError:
        return None
    return Applied(generation=last.generation, revision=last.revision, manifest=manifest, when=last.when)


def last_manifest(records: Records) -> Manifest | None:
    """Return the manifest of the last committed revision without the overlay; None like `last_applied`."""
    last, applied = records.last(), last_applied(records)
    return split(applied.manifest, last.overlay)[0] if last is not None and applied is not None else None
