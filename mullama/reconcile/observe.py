"""Observes what is applied, what is stored, and what the machine has. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import Applied, Observed
from mullama.reconcile.files import Files
from mullama.reconcile.gc import prunable
from mullama.reconcile.machine import observe_machine
from mullama.store.records import Records
from mullama.weights.stored import LockEntry


def observe(desired: Manifest, records: Records, files: Files, lock: Mapping[str, LockEntry]) -> Observed:
    """Return what is known without a server: from the records and the store. desired: with the overlay."""
    applied = last_applied(records)
    manifests = [desired, *([applied.manifest] if applied else [])]
    return Observed(
        applied=applied, live=None, files=files.known(manifests, lock),
        machine=observe_machine(desired.hardware),
        unneeded=prunable(desired, records.folder.parent, files, lock),
    )  # fmt: skip


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
