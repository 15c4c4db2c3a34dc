"""The lock file as a value: what every source text of a manifest stood for, so that all machines get the same bytes.

JSON with sorted keys, so that the same lock is the same text. Reading and writing the file is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from mullama.errors import Invalid
from mullama.names import Digest, parse_source
from mullama.units import size
from mullama.weights import record
from mullama.weights.stored import FileRole, LockEntry, PinnedFile

FORMAT: Final = 1
MAX_BYTES: Final = 16 * 1024**2
_LICENSE: Final = 200
_REVISION: Final = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")

Lock = Mapping[str, LockEntry]
"""Source text to what it stood for."""


def render(lock: Lock) -> str:
    """The text of a lock file; equal locks give equal texts."""
    sources = {source: _entry_tree(entry) for source, entry in sorted(lock.items())}
    return json.dumps({"mullama.lock": FORMAT, "sources": sources}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text: str, name: str = "mullama.lock") -> dict[str, LockEntry]:
    """The reverse; every mistake is an `Invalid` that names the entry and the field."""
    if len(text) > MAX_BYTES:
        raise Invalid(f"{name} is larger than {size(MAX_BYTES)}")
    try:
        tree = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name} is not JSON: {error}", hint="`mullama lock --update` writes it anew") from None
    if not isinstance(tree, dict) or tree.get("mullama.lock") != FORMAT:
        said = tree.get("mullama.lock") if isinstance(tree, dict) else None
        raise Invalid(f"{name} has the format {str(said)[:40]}, this version reads {FORMAT}")
    _only(tree, {"mullama.lock", "sources"}, name)
    sources = tree.get("sources")
    if not isinstance(sources, dict):
        raise Invalid(f"{name}: sources is not an object")
    return {source: _entry(source, value, f"{name}: {source}") for source, value in sources.items()}


def _entry_tree(entry: LockEntry) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "resolved": entry.resolved,
        "revision": entry.revision,
        "files": [
            {"name": file.name, "size": file.size, "digest": file.digest, "role": file.role} for file in entry.files
        ],
    }
    if entry.license:
        tree["license"] = entry.license[:_LICENSE]
    if entry.facts is not None:
        tree["facts"] = record.to_json(record.for_lock(entry.facts))
    return tree


def _entry(source: str, value: Any, what: str) -> LockEntry:
    if not isinstance(value, dict):
        raise Invalid(f"{what} is not an object")
    _only(value, {"resolved", "revision", "files", "facts", "license"}, what)
    parse_source(source)
    resolved, revision, files = value.get("resolved"), value.get("revision"), value.get("files")
    if not isinstance(resolved, str):
        raise Invalid(f"{what}.resolved is missing")
    parse_source(resolved)
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        raise Invalid(f"{what}.revision is {str(revision)[:80]!r}, not a commit or a digest")
    if not isinstance(files, list) or not files:
        raise Invalid(f"{what}.files holds no files")
    facts, license_ = value.get("facts"), value.get("license", "")
    if not isinstance(license_, str):
        raise Invalid(f"{what}.license is not a text")
    return LockEntry(
        source=source,
        resolved=resolved,
        revision=revision,
        files=tuple(_file(file, f"{what}.files[{number}]") for number, file in enumerate(files)),
        license=license_,
        facts=None if facts is None else record.from_json(facts, f"{what}.facts"),
    )


def _file(value: Any, what: str) -> PinnedFile:
    if not isinstance(value, dict):
        raise Invalid(f"{what} is not an object")
    _only(value, {"name", "size", "digest", "role"}, what)
    name, size, role = value.get("name"), value.get("size"), value.get("role", "weights")
    if not isinstance(name, str) or not 0 < len(name) <= 1024:
        raise Invalid(f"{what}.name is {str(name)[:80]!r}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**50:
        raise Invalid(f"{what}.size is {str(size)[:80]!r}")
    if role not in get_args(FileRole):
        raise Invalid(f"{what}.role is {str(role)[:80]!r}")
    return PinnedFile(name=name, size=size, digest=Digest.parse(str(value.get("digest"))).text, role=role)


def _only(tree: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(set(tree) - known)
    if unknown:
        raise Invalid(f"{what} has the unknown field {unknown[0][:80]!r}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found
