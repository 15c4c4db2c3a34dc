"""The files of a model with their state in the lock file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal

from mullama.errors import masked
from mullama.manifest.spec import Model
from mullama.plan.observed import KnownFiles
from mullama.reconcile.files import is_local
from mullama.runtime.snapshot import Deployment
from mullama.weights.stored import LockEntry, ProjectorFile

LockState = Literal["pinned", "differs", "missing", "local"]
"""`local`: a file of this machine, which a lock file does not pin."""


def file_rows(deployment: Deployment, lock: Mapping[str, LockEntry], *, paths: bool) -> list[dict[str, Any]]:
    """Return each file that the model loads. paths: with their places on this machine."""
    model = deployment.model
    found = list(source_rows("weights", deployment.files, lock, deployment.model.digest))
    known = {row["digest"] for row in found}
    projector = deployment.projector
    if projector is not None and (not projector.digest or projector.digest not in known):
        found.append(_projector_row(projector, model, lock))
    if deployment.drafter is not None:
        found += source_rows("draft", deployment.drafter, lock, None)
    for declared, adapter in zip(model.adapters, deployment.adapters, strict=False):
        found += source_rows("adapter", adapter, lock, declared.digest)
    return found if paths else [{**row, "path": None} for row in found]


def source_rows(
    role: str, files: KnownFiles, lock: Mapping[str, LockEntry], declared: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the files of one source: its parts and the small files beside them. declared: `digest` of the manifest."""
    common = {
        "source": masked(files.source),
        "stored": files.stored,
        "lock": lock_state(files.source, files.digest, lock),
        "declared": declared,
        "problem": files.unusable.reason if files.unusable else "",
    }
    parts = list(files.paths)
    pins = files.weights.pinned if files.weights else ()
    if not pins:
        single = len(parts) <= 1
        for path in parts or [""]:
            yield {
                "role": role,
                "name": PurePath(path).name or masked(files.source),
                "path": path or None,
                "size": files.size if single else None,
                "digest": (files.digest or "") if single else "",
                **common,
            }
        return
    for pin in pins:
        place = parts.pop(0) if pin.role == "weights" and parts else None
        own = role if pin.role == "weights" else pin.role
        yield {"role": own, "name": pin.name, "path": place, "size": pin.size, "digest": pin.digest, **common}


def _projector_row(projector: ProjectorFile, model: Model, lock: Mapping[str, LockEntry]) -> dict[str, Any]:
    source = model.projector_source or model.from_
    pins = lock[source].files if source in lock else ()
    pinned = next((pin.digest for pin in pins if pin.digest == projector.digest), None)
    state: LockState = "local" if is_local(source) else "missing" if not pins else "pinned" if pinned else "differs"
    return {
        "role": "projector",
        "name": PurePath(projector.path).name or masked(source),
        "path": projector.path or None,
        "size": projector.size,
        "digest": projector.digest,
        "source": masked(source),
        "stored": bool(projector.path),
        "lock": state,
        "declared": None,
        "problem": "",
    }


def lock_state(source: str, digest: str | None, lock: Mapping[str, LockEntry]) -> LockState:
    """Return whether the lock file pins the files of a source as they are here.

    Files that are not here, or were not hashed yet, cannot differ.
    """
    if is_local(source):
        return "local"
    entry = lock.get(source)
    if entry is None:
        return "missing"
    return "differs" if digest and digest != entry.digest else "pinned"
