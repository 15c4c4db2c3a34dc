"""Settings that are not supported yet. They are refused with the reason, not ignored.

When a feature is added, its line here is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mullama.manifest.nodes import join
from mullama.names import JSONValue

# Reasons by dotted path, with `*` for any key.
REFUSALS: Mapping[str, str] = {
    "models.*.mmproj": "images and sound are not supported yet",
}

# Hints by dotted path.
INSTEAD: Mapping[str, str] = {}


def refused(tree: Mapping[str, JSONValue]) -> Iterator[tuple[str, str, str]]:
    """Yield (path, reason, hint) of each refused setting of the plain manifest."""
    for pattern, reason in REFUSALS.items():
        for path, value in _find(tree, pattern.split("."), ""):
            if value not in (None, {}, [], ()):
                yield path, reason, INSTEAD.get(pattern, "remove it")


def _find(value: JSONValue, pattern: Sequence[str], path: str) -> Iterator[tuple[str, JSONValue]]:
    if not pattern:
        yield path, value
    elif isinstance(value, Mapping):
        for key in value if pattern[0] == "*" else (pattern[0],):
            if key in value:
                yield from _find(value[key], pattern[1:], join(path, key))
