"""Remote files of `include`: `hf:org/repo/path/file.yaml@revision`.

They are written by others, so they are trusted with models, routes, groups, moves and hardware profiles, and with
nothing of this machine: no path, no environment variable, no secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from mullama.errors import Invalid
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.interpolate import interpolate
from mullama.manifest.key_tree import KeyTree, to_plain
from mullama.manifest.nodes import Fields, Items, Leaf, Node, join
from mullama.manifest.resolve import Environment, resolve_settings
from mullama.manifest.shorthand import expand
from mullama.manifest.spec import Manifest, Sources
from mullama.manifest.spec.core import ValidationError
from mullama.names import HubRef, parse_source

PREFIX = "hf:"
ALLOWED = ("mullama", "models", "routes", "groups", "moved", "hardware")
_SPEC = re.compile(r"hf:([^/]+/[^/]+)/([^@]+?)(?:@([^@]+))?")

_KEY_MOVE = re.compile(r"moved\[\d+\]\.kind")
"""A rename of a key gives its usage, levels and stored objects to another one."""


class RemoteFiles(Protocol):
    """The source of remote files."""

    def read(self, spec: str, sources: Sources, lock: bytes | None) -> bytes:
        """Return the content that the lock file pins. Raises a `MullamaError` without a pin, or for other bytes.

        sources: the settings of the manifest. lock: the content of its lock file, None without one.
        """
        ...


def parse_spec(spec: str) -> HubRef:
    """Return the file of a hub repository; raise `Invalid` for other text."""
    found = _SPEC.fullmatch(spec)
    if found is None or not found[2].endswith((".yaml", ".yml")):
        raise Invalid(f"{spec[:120]!r} names no YAML file of a repository", hint="hf:org/repo/file.yaml@revision")
    ref = parse_source(f"hf:{found[1]}:{found[2]}" + (f"@{found[3]}" if found[3] else ""))
    if not isinstance(ref, HubRef) or ref.file is None:
        raise Invalid(f"{spec[:120]!r} names no file of a repository", hint="hf:org/repo/file.yaml@revision")
    return ref


def sources_of(root: Node, world: Environment) -> Sources:
    """Return the block `sources` of the main document; its defaults where it has mistakes, which `parse` reports."""
    block = root.get("sources") if isinstance(root, Fields) else None
    if not isinstance(root, Fields) or block is None:
        return Sources()
    report = Diagnostics()
    alone = expand(Fields({"sources": block}, {"sources": root.keys["sources"]}, root.place), report)
    settled = resolve_settings(interpolate(alone, world.env, report), world, report)
    plain = to_plain(settled, KeyTree(block=Manifest), report)
    try:
        manifest: Manifest = Manifest.model_validate({"mullama": "v1", **(plain if isinstance(plain, dict) else {})})
    except ValidationError:
        return Sources()
    return manifest.sources


def check_trusted(document: Node, report: Diagnostics) -> Node:
    """Return a remote document without what it must not have, which is added to the report."""
    if not isinstance(document, Fields):
        return document
    refused = [key for key in document.entries if key not in ALLOWED and not key.startswith("x-")]
    for key in refused:
        hint = f"it may contain {', '.join(ALLOWED[1:-1])} and hardware.profiles"
        report.add(key, document.keys[key], "a remote file cannot contain this key", hint)
    for path, leaf in _leaves(document, ""):
        text = leaf.value
        if _KEY_MOVE.fullmatch(path) and text == "key":
            hint = "write the entry into the manifest, which declares the keys"
            report.add(path, leaf.place, "a remote file cannot rename API keys", hint)
        if not isinstance(text, str):
            continue
        if "${" in text.replace("$${", ""):
            hint = "set the value in the manifest"
            report.add(path, leaf.place, "a remote file cannot use environment variables", hint)
        elif "from_env:" in text:
            report.add(path, leaf.place, "a remote file cannot name secrets", "declare the model in the manifest")
    return document.without(*refused)


def _leaves(node: Node, path: str) -> Iterator[tuple[str, Leaf]]:
    match node:
        case Leaf():
            yield path, node
        case Items(items):
            for index, item in enumerate(items):
                yield from _leaves(item, join(path, index))
        case Fields(entries):
            for key, child in entries.items():
                yield from _leaves(child, join(path, key))
