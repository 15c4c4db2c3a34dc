"""The text of a lock file: for each source of a manifest, the files that it stands for. All machines then get the same.

It pins the remote files of `include` and the tools of servers, too.

The JSON has sorted keys, so equal locks are equal texts. The caller reads and writes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from mullama.codec import from_tree, to_tree
from mullama.errors import Invalid
from mullama.names import Digest, parse_source
from mullama.plan.tools import ToolPins
from mullama.struct import Struct, replace
from mullama.units import size
from mullama.weights import record
from mullama.weights.facts import ProjectorFacts
from mullama.weights.stored import LockEntry, PinnedFile

FORMAT: Final = 1
MAX_BYTES: Final = 16 * 1024**2
_MAX_LICENSE: Final = 200
_REVISION: Final = re.compile(r"[0-9a-f]{40}|sha256:[0-9a-f]{64}")

Lock = Mapping[str, LockEntry]
"""A lock entry for each source text."""


class IncludePin(Struct, frozen=True, kw_only=True):
    """The content of a remote file of `include` at the time of the lock."""

    revision: str
    """The commit."""
    digest: str
    """`sha256:…`."""
    size: int
    """Bytes."""


class _EntryFields(Struct, frozen=True, kw_only=True):
    """An entry as the file has it."""

    resolved: str
    revision: str | None = None
    files: tuple[PinnedFile, ...] = ()
    license: str = ""
    facts: dict[str, Any] | None = None
    projector: ProjectorFacts | None = None


def render(
    lock: Lock,
    includes: Mapping[str, IncludePin] | None = None,
    tools: Mapping[str, ToolPins] | None = None,
) -> str:
    """Return the text of a lock file. tools: the pins of each server of tools by its name."""
    sources = {source: entry_tree(entry) for source, entry in sorted(lock.items())}
    tree: dict[str, Any] = {"mullama.lock": FORMAT, "sources": sources}
    if includes:
        tree["includes"] = {source: to_tree(pin) for source, pin in includes.items()}
    if tools:
        tree["tools"] = {server: dict(pins) for server, pins in tools.items()}
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text: str, name: str = "mullama.lock") -> dict[str, LockEntry]:
    """Return the entries of a lock file; raise `Invalid` that names the entry and the field."""
    return lock_of(_parts(text, name)["sources"], f"{name}: ")


def lock_of(sources: Mapping[str, Any], place: str = "") -> dict[str, LockEntry]:
    """Return the entries of the trees that `entry_tree` made; raise `Invalid` as `parse`. place: begins its message."""
    return {source: _entry(source, value, place + source) for source, value in sources.items()}


def entry_of(source: str, tree: Mapping[str, Any], name: str) -> LockEntry:
    """Return the entry that `entry_tree` wrote; raise `Invalid` as `parse`. name: begins the messages."""
    return _entry(source, tree, name)


def parse_includes(text: str, name: str = "mullama.lock") -> dict[str, IncludePin]:
    """Return the pins of the remote files of `include`; raise `Invalid` as `parse`."""
    return {source: _pin(value, f"{name}: {source}") for source, value in _parts(text, name)["includes"].items()}


def parse_tools(text: str, name: str = "mullama.lock") -> dict[str, dict[str, str]]:
    """Return the pins of each server of tools by its name; raise `Invalid` as `parse`."""
    servers = _parts(text, name)["tools"]
    found: dict[str, dict[str, str]] = {}
    for server, tools in servers.items():
        if not isinstance(tools, dict) or not all(isinstance(digest, str) for digest in tools.values()):
            raise Invalid(f"{name}: tools.{server} is not a map of tools and digests")
        found[server] = {tool: Digest.parse(digest).text for tool, digest in tools.items()}
    return found


def _pin(tree: Any, name: str) -> IncludePin:
    pin = from_tree(IncludePin, tree, name, only_known=True)
    if not _REVISION.fullmatch(pin.revision):
        raise Invalid(f"{name}.revision is {pin.revision[:80]!r}, not a commit")
    return replace(pin, digest=Digest.parse(pin.digest).text)


def _parts(text: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the objects of a lock file by their keys."""
    if len(text) > MAX_BYTES:
        raise Invalid(f"{name} is larger than {size(MAX_BYTES)}")
    try:
        tree = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name} is not JSON: {error}", hint="`mullama lock --update` replaces it") from None
    if not isinstance(tree, dict) or tree.get("mullama.lock") != FORMAT:
        found = tree.get("mullama.lock") if isinstance(tree, dict) else None
        raise Invalid(f"{name} has the format {str(found)[:40]}, this version reads {FORMAT}")
    if unknown := sorted(set(tree) - {"mullama.lock", "sources", "includes", "tools"}):
        raise Invalid(f"{name} has the unknown field {unknown[0][:80]!r}")
    parts = {"sources": tree.get("sources"), "includes": tree.get("includes", {}), "tools": tree.get("tools", {})}
    for key, part in parts.items():
        if not isinstance(part, dict):
            raise Invalid(f"{name}: {key} is not an object")
    return parts


def entry_tree(entry: LockEntry) -> dict[str, Any]:
    """Return an entry as the file has it under `sources`."""
    tree: dict[str, Any] = {
        "resolved": entry.resolved,
        "revision": entry.revision,
        "files": [
            {"name": file.name, "size": file.size, "digest": file.digest, "role": file.role} for file in entry.files
        ],
    }
    if entry.license:
        tree["license"] = entry.license[:_MAX_LICENSE]
    if entry.projector is not None:
        tree["projector"] = to_tree(entry.projector)
    if entry.facts is not None:
        tree["facts"] = record.to_json(record.for_lock(entry.facts))
    return tree


def _entry(source: str, tree: Any, name: str) -> LockEntry:
    parse_source(source)
    fields = from_tree(_EntryFields, tree, name, only_known=True)
    parse_source(fields.resolved)
    if fields.revision is not None and not _REVISION.fullmatch(fields.revision):
        raise Invalid(f"{name}.revision is {fields.revision[:80]!r}, not a commit or a digest")
    if not fields.files:
        raise Invalid(f"{name}.files holds no files")
    return LockEntry(
        source=source,
        resolved=fields.resolved,
        revision=fields.revision,
        files=tuple(_checked(file, f"{name}.files[{number}]") for number, file in enumerate(fields.files)),
        license=fields.license,
        projector=fields.projector,
        facts=None if fields.facts is None else record.from_json(fields.facts, f"{name}.facts"),
    )


def _checked(file: PinnedFile, name: str) -> PinnedFile:
    if not 0 < len(file.name) <= 1024:
        raise Invalid(f"{name}.name is {file.name[:80]!r}")
    if not 0 <= file.size < 2**50:
        raise Invalid(f"{name}.size is {file.size}")
    return replace(file, digest=Digest.parse(file.digest).text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found
