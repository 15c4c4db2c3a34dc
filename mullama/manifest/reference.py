"""The reference page of the manifest, from the same fields as the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.manifest.described import described
from mullama.manifest.schema import JSON, json_schema

_OPENING = """\
# The manifest, field by field

<!-- Written by docs/reference/write.py from mullama/manifest/spec and the cost table. -->

What each field means, what it may hold, what it is when it is left out, and what a change of it costs a running
server: *none* is only recorded, *live* is seen by the next request, *context* makes a new context over the loaded
weights, *weights* loads them again, *files* fetches first, *process* opens a new listener.

Sizes are written `8MiB`, `200MB` or as a number of bytes; durations `30s`, `1h30m`, `never` or as seconds. Any value
but a secret may be `${NAME}`, `${NAME:-default}` or `${NAME:?message}`, from the environment; `$${` is a literal `${`.
Keys that begin with `x-` are free in every block. `NAME` in a path stands for a name of your choice.
"""

_UNITS = {"bytes": "size", "share": "size, or share such as `80%`", "seconds": "duration"}


def reference_page(costs: Mapping[str, str]) -> str:
    """Markdown with one table for each block."""
    schema = json_schema(costs)
    lines = [_OPENING]
    for title, definition in _sections(schema):
        lines += ["", f"## {title}", "", definition["description"], "", *_table(definition)]
    return "\n".join(lines) + "\n"


def _sections(schema: JSON) -> Iterator[tuple[str, JSON]]:
    """Each block once, with the path it is at: the manifest itself, then as its fields come, models first."""
    yield "The document", {**schema, "description": "Everything but the first line may be left out."}
    for name, path in _PATHS.items():
        yield path, schema["definitions"][name]


def _paths() -> Mapping[str, str]:
    """Where each block of the schema stands."""
    found: dict[str, str] = {}
    for field in described():
        if (path := field.path.rpartition(".")[0]) or field.block.__name__ != "Manifest":
            found.setdefault(field.block.__name__, path.replace("*", "NAME"))
    return found


def _table(definition: JSON) -> Iterator[str]:
    yield "| field | what it holds | default | cost | meaning |"
    yield "|---|---|---|---|---|"
    for key, field in definition["properties"].items():
        default = _needed(key, definition) or _default(field)
        cells = (f"`{key}`", _kind(field), default, field.get("x-mullama-cost", ""), field.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _needed(key: str, definition: JSON) -> str:
    """Whether a field must be there: by itself, or as one of several."""
    if key in definition.get("required", ()):
        return "required"
    arms: list[JSON] = definition.get("oneOf") or definition.get("anyOf") or []
    choice = [arm["required"][0] for arm in arms]
    return f"one of {', '.join(f'`{name}`' for name in choice)}" if key in choice else ""


def _default(field: JSON) -> str:
    value = field.get("default")
    if value in (None, ""):
        return ""
    return f"`{_shown(value, _unit(field))}`"


def _unit(schema: Any) -> str:
    if isinstance(schema, dict):
        return schema.get("x-mullama-unit", "") or next(filter(None, map(_unit, schema.get("anyOf", []))), "")
    return ""


def _shown(value: Any, unit: str) -> str:
    if unit == "bytes" and value and value % 2**20 == 0:
        return f"{value // 2**30}GiB" if value % 2**30 == 0 else f"{value // 2**20}MiB"
    if unit == "seconds":
        for suffix, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
            if value and value % seconds == 0:
                return f"{value // seconds:.0f}{suffix}"
        return f"{value:g}s"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(schema: JSON) -> str:
    """What a field may hold, in a few words; null and references to the environment go without saying."""
    if "anyOf" in schema:
        arms = [_kind(arm) for arm in schema["anyOf"] if arm != {"type": "string", "pattern": r"\$\{"}]
        return " or ".join(dict.fromkeys(arm for arm in arms if arm))
    if "$ref" in schema:
        return _link(schema["$ref"].removeprefix("#/definitions/"))
    if "enum" in schema:
        return ", ".join(f"`{_shown(option, '')}`" for option in schema["enum"])
    if schema.get("const") in (0, -1):
        return ""  # a Modelfile's word for automatic
    if "const" in schema:
        return f"`{schema['const']}`"
    if "x-mullama-unit" in schema:
        return _UNITS[schema["x-mullama-unit"]]
    return _plain_kind(schema)


def _plain_kind(schema: JSON) -> str:
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "object":
            patterns = list(schema.get("patternProperties", {}).values())
            values: JSON = schema.get("additionalProperties") or patterns[0]
            return f"map of {_kind(values)}"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(schema)
        case "boolean":
            return "true or false"
        case "string":
            return "text"
        case _:
            return ""


def _bounds(schema: JSON) -> str:
    if "exclusiveMinimum" in schema:
        start = f"above {schema['exclusiveMinimum']:,}"
        return f", {start}" + (f", at most {schema['maximum']:,}" if "maximum" in schema else "")
    if "minimum" not in schema:
        return ""
    return f", {schema['minimum']:,} " + (f"to {schema['maximum']:,}" if "maximum" in schema else "or more")


def _link(name: str) -> str:
    """A word that leads to the section of a block."""
    if "/properties/" in name:
        return "as that field"
    path = {"Defaults": "models.NAME", "PatchManifest": "The document"}.get(name) or _PATHS[name]
    anchor = path.lower().replace(".", "").replace(" ", "-")
    return f"[{path}](#{anchor})"


_PATHS = _paths()
