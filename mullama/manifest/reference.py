"""The reference page of the manifest, from the same fields as the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.manifest.field_docs import described
from mullama.manifest.schema import JSON, json_schema
from mullama.units import duration_literal, size_literal

_OPENING = """\
# The manifest, field by field

<!-- Written by `make docs` from the code; edit the code instead. -->

What each field means, what it may hold, what it is when it is left out, and what a change of it costs a running
server: *none* is only recorded, *live* is seen by the next request, *context* makes a new context over the loaded
weights, *weights* loads them again, *files* fetches first, *process* opens a new listener.

Sizes are written `8MiB`, `200MB` or as a number of bytes; durations `30s`, `1h30m`, `never` or as seconds. `NAME` in a
path stands for a name of your choice. Keys that begin with `x-` are free in every block; among names they are names.

## How it is read

1. The file is YAML 1.2 (JSON is YAML) in UTF-8, at most 1 MiB, one document. A key that stands twice is a mistake, and
   so are tags. Only `true` and `false` are booleans; dates, octal numbers and words such as `on` are text. Anchors and
   `<<` work within bounds.
2. `include` adds the models, routes, groups, moves, `auth.keys` and `hardware.profiles` of other files, which include
   nothing themselves. The same name twice is a mistake. Paths in a file are relative to that file.
3. Profiles (`--profile NAME`, in the order of choice) are laid over it: maps merge, lists replace, null removes. A
   template and a secret are replaced whole.
4. References are replaced, once, in values only: `${NAME}`, `${NAME:-default}` and `${NAME:?message}` (these two also
   when the variable is empty), `$${` for a literal `${`. A variable that is not set and has no default is a mistake.
   A value that is one reference and nothing else takes the type of its field. Secrets take no references: they are
   named by `from_env` or `from_file` and never read here.
5. Each model is made of layers, lowest first: `defaults`, the model that it is `like`, itself. In the highest layer
   that says `hardware: NAME`, that profile lies under what the layer says. Null removes what lower layers say.
6. Every mistake is shown at once, with file, line and column; what is not supported yet is refused, never ignored.
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
    if unit == "bytes" and isinstance(value, int):
        return size_literal(value)
    if unit == "seconds":
        return duration_literal(value)
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
