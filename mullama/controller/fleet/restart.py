"""A host of a fleet that starts again: it serves what the fleet applied last, and not its own file."""

from __future__ import annotations

from mullama.manifest.load import LoadedManifest
from mullama.reconcile.observe import last_manifest
from mullama.reconcile.overlay import split
from mullama.runtime.base import Origin
from mullama.store.records import Records
from mullama.struct import replace


def from_fleet(loaded: LoadedManifest, source: Origin, records: Records) -> tuple[LoadedManifest, Origin]:
    """Return the manifest and the origin with which the host starts.

    The file of the host says where it listens and who may change it. Its models are those of the fleet, from the first
    apply of the fleet until another manifest is applied to this host.
    """
    last = records.last()
    fleet = str(last.origin.get("fleet") or "") if last is not None else ""
    applied = last_manifest(records) if fleet else None
    if last is None or applied is None:
        return loaded, source
    manifest, _ = split(applied, last.overlay)
    return replace(loaded, manifest=manifest, digest=""), Origin(fleet=fleet)
