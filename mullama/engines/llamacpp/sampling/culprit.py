"""Finds the part of a JSON schema for which a grammar cannot be compiled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_MOST_TRIES = 100
_SCHEMA = re.compile(r"^\w+: %json (\{.*\})$", re.MULTILINE)
_PREFIX = re.compile(r"^at \d+\(\d+\): (?:failed to compile JSON schema: )?(?:Unsatisfiable schema: )?")
_SILENT = frozenset(("$defs", "additionalProperties", "properties", "required", "type", "x-guidance"))

ErrorOf = Callable[[str], str]
"""Returns the error of the compiler for a grammar, "" when it compiles."""


def explained(grammar: str, error: str, error_of: ErrorOf) -> str:
    """Return the cause of `error` in one line: keywords and JSON pointer for a schema, without the grammar itself."""
    search = _Search(error_of)
    for found in _SCHEMA.finditer(grammar):
        schema = json.loads(found[1])
        if search.fails(schema, schema):
            part, path = search.innermost(schema, schema, "#")
            keywords = [key for key in part if key not in _SILENT] or sorted(part.keys() - {"$defs", "x-guidance"})
            reason = _line(search.errors.get(path, error))
            return f"no value fits the schema with {', '.join(keywords)}: {reason} (at {path})"
    return _line(error)


class _Search:
    """Compiles parts of one schema, a bounded number of them."""

    def __init__(self, error_of: ErrorOf) -> None:
        self.errors: dict[str, str] = {}
        self._error_of = error_of
        self._tries = 0

    def fails(self, part: Any, root: Mapping[str, Any], path: str = "#") -> bool:
        """Return True if this part alone cannot be compiled."""
        self._tries += 1
        if not isinstance(part, Mapping) or self._tries > _MOST_TRIES:
            return False
        shared = {key: root[key] for key in ("$defs", "x-guidance") if key in root}
        error = self._error_of("start: value\nvalue: %json " + json.dumps({**part, **shared}) + "\n")
        if error:
            self.errors[path] = error
        return bool(error)

    def innermost(self, part: Mapping[str, Any], root: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], str]:
        """Return the innermost needed part that cannot be compiled, and its JSON pointer."""
        for step, inner in _needed(part, root):
            place = step if step.startswith("#") else f"{path}/{step}"
            if place not in self.errors and self.fails(inner, root, place):
                return self.innermost(inner, root, place)
        branches = part.get("anyOf", ())
        if branches and all(self.fails(one, root, f"{path}/anyOf/{index}") for index, one in enumerate(branches)):
            return self.innermost(branches[0], root, f"{path}/anyOf/0")
        return part, path


def _needed(part: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts without which no value of the schema exists, each with its step of the JSON pointer."""
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        yield reference, root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
    for name in part.get("required", ()):
        escaped = str(name).replace("~", "~0").replace("/", "~1")
        yield f"properties/{escaped}", part.get("properties", {}).get(name)
    for index, inner in enumerate(part.get("allOf", ())):
        yield f"allOf/{index}", inner
    first = part.get("prefixItems", ())
    for index, inner in enumerate(first[: part.get("minItems", 0)]):
        yield f"prefixItems/{index}", inner
    if part.get("minItems", 0) > len(first):
        yield "items", part.get("items")


def _line(error: str) -> str:
    """Return the reason of an error, without its place in the grammar and without what the compiler prints of it."""
    reason = _PREFIX.sub("", (error.splitlines() or [""])[0])
    if reason.startswith("Regex is empty"):
        reason = "the keywords exclude every text"
    if reason.startswith("NoExtension"):
        reason = "no text fits it"
    return reason[:200]
