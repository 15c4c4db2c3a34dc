"""The pins of a manifest: its own, and those of the lock file next to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.spec import LockedSource, Manifest
from mullama.names import LOCK_NAME
from mullama.plan.observed import KnownFiles
from mullama.plan.tools import ToolPins
from mullama.store import lockfile
from mullama.weights.facts import ProjectorFacts
from mullama.weights.stored import LockEntry, ProjectorFile


def lock_path(manifest_path: str) -> Path:
    return Path(manifest_path).with_name(LOCK_NAME)


def read_lock(manifest_path: str | None) -> Mapping[str, LockEntry]:
    """Return the entries of the lock file next to a manifest, by source; none without a lock file."""
    text, path = _lock_text(manifest_path)
    return lockfile.parse(text, path) if text is not None else {}


def read_locked_tools(manifest_path: str | None) -> Mapping[str, ToolPins]:
    """Return the pins of tools of the lock file next to a manifest, by server; none without a lock file."""
    text, path = _lock_text(manifest_path)
    return lockfile.parse_tools(text, path) if text is not None else {}


def lock_digest(manifest_path: str | None) -> str:
    """Return a digest of the lock file next to a manifest; "" without a lock file."""
    if manifest_path is None:
        return ""
    try:
        return hashlib.sha256(lock_path(manifest_path).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def pins_of(manifest: Manifest, path: str | None) -> Mapping[str, LockEntry]:
    """Return the pins of a manifest and of the lock file next to it, by source. Those of the manifest count first."""
    sources = manifest.lock.sources.items()
    own = {name: lockfile.entry_of(name, _entry_tree(pin), f"lock.sources.{name}") for name, pin in sources}
    return {**read_lock(path), **own} if own else read_lock(path)


def _entry_tree(pin: LockedSource) -> dict[str, Any]:
    tree: dict[str, Any] = pin.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in tree.items() if value or key not in ("facts", "projector")}


def tool_pins_of(manifest: Manifest, path: str | None) -> Mapping[str, ToolPins]:
    """Return the pins of tools of a manifest and of the lock file next to it, by server."""
    return {**read_locked_tools(path), **manifest.lock.tools}


def _lock_text(manifest_path: str | None) -> tuple[str | None, str]:
    """Return the text of a lock file, None without one, and its path."""
    if manifest_path is None:
        return None, ""
    path = lock_path(manifest_path)
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        return None, str(path)
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text", hint="mullama lock writes it again") from error


def pinned(entry: LockEntry) -> KnownFiles:
    """Return the files of a lock entry, which need not be stored."""
    size = sum(file.size for file in entry.files if file.role == "weights")
    return KnownFiles(
        source=entry.source, digest=entry.digest, size=size, facts=entry.facts, projector=_pinned_projector(entry)
    )


def _pinned_projector(entry: LockEntry) -> ProjectorFile | None:
    """Return the projector beside the weights of an entry, or the one that the entry is of."""
    if entry.facts is not None and entry.facts.projector is not None:
        [file] = entry.files[:1]
        return ProjectorFile(digest=file.digest, size=file.size, facts=entry.facts.projector)
    beside = [file for file in entry.files if file.role == "projector"]
    if not beside:
        return None
    return ProjectorFile(digest=beside[0].digest, size=beside[0].size, facts=entry.projector or ProjectorFacts())
