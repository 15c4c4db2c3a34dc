"""The reference page of the manifest, generated from the JSON Schema."""

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

The tables give each field's type, default, meaning, and the cost of a change while the server runs:

| cost | effect of a change |
|---|---|
| none | The change is recorded only. |
| live | The next request uses the new value. |
| context | A new context is made; the weights stay loaded. |
| weights | The weights are loaded again. |
| files | Files are downloaded, then the weights are loaded. |
| process | The server opens new listeners. |

A size is `8MiB`, `200MB` or a number of bytes. A duration is `30s`, `1h30m`, `never` or a number of seconds. `NAME` in
a path is a name of your choice. Keys that begin with `x-` are ignored in blocks; in a map of names, such as `models`,
they are names.

## Loading

1. The file is one YAML 1.2 document (JSON is YAML) in UTF-8 of at most 1 MiB. Duplicate keys and tags are errors. Only
   `true` and `false` are booleans; dates, octal numbers and words such as `on` are text. Anchors and `<<` are limited
   in number.
2. `include` adds the models, routes, groups, moves, `auth.keys` and `hardware.profiles` of other files, which cannot
   include further files. Duplicate names are errors. Paths in a file are relative to that file. A remote file,
   `hf:org/repo/file.yaml@revision`, is used as the lock file pins it. It cannot contain `auth.keys`, paths of this
   machine, environment variables or secrets.
3. Profiles (`--profile NAME`, in the given order) are merged over the manifest: maps merge, lists replace, null
   removes. A template or secret is replaced as one value.
4. References to environment variables in values are replaced once: `${NAME}`, `${NAME:-default}` and
   `${NAME:?message}`, the last two also for an empty variable; `$${` is a literal `${`. An unset variable without a
   default is an error. A value that consists of one reference has the type of its field. Secrets are named by
   `from_env` or `from_file`; they cannot contain references.
5. A model is merged from layers, lowest first: `defaults`, the model named by `like`, the model itself. The profile of
   `hardware: NAME` is merged below the highest layer that names it. Null removes the value of a lower layer.
6. All errors are reported together, with file, line and column. Unsupported settings are refused, not ignored.
"""

_UNITS = {
    "bytes": "size",
    "share": "size, or share such as `80%`",
    "seconds": "duration",
    "rate": "rate",
    "any": "any value",
}


def reference_page(costs: Mapping[str, str]) -> str:
    """Return Markdown with one table for each block."""
    schema = json_schema(costs)
    lines = [_OPENING]
    for title, definition in _sections(schema):
        lines += ["", f"## {title}", "", definition["description"], "", *_table(definition)]
    return "\n".join(lines) + "\n"


def _sections(schema: JSON) -> Iterator[tuple[str, JSON]]:
    """Yield (path, definition) of each block once: the manifest itself, then its blocks, models first."""
    yield "The document", {**schema, "description": "All fields except `mullama` are optional."}
    for name, path in _PATHS.items():
        yield path, schema["definitions"][name]


def _paths() -> Mapping[str, str]:
    """Return the path of each block of the schema."""
    found: dict[str, str] = {}
    for field in described():
        if (path := field.path.rpartition(".")[0]) or field.block.__name__ != "Manifest":
            found.setdefault(field.block.__name__, path.replace("*", "NAME"))
    return found


def _table(definition: JSON) -> Iterator[str]:
    yield "| field | type | default | cost | meaning |"
    yield "|---|---|---|---|---|"
    for key, field in definition["properties"].items():
        default = _needed(key, definition) or _default(field)
        cells = (f"`{key}`", _kind(field), default, field.get("x-mullama-cost", ""), field.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _needed(key: str, definition: JSON) -> str:
    """Return `required`, or the fields of which one is required, or nothing."""
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
    """Return the type of a field in a few words, without null and references to the environment."""
    if "anyOf" in schema:
        arms = [_kind(arm) for arm in schema["anyOf"] if arm != {"type": "string", "pattern": r"\$\{"}]
        return " or ".join(dict.fromkeys(arm for arm in arms if arm))
    if "$ref" in schema:
        return _link(schema["$ref"].removeprefix("#/definitions/"))
    if "enum" in schema:
        return ", ".join(f"`{_shown(option, '')}`" for option in schema["enum"])
    if schema.get("const") in (0, -1):
        return ""  # the Modelfile spelling of an automatic value
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
    """Return a link to the section of a block."""
    if "/properties/" in name:
        return "as that field"
    path = {"Defaults": "models.NAME", "PatchManifest": "The document"}.get(name) or _PATHS[name]
    anchor = path.lower().replace(".", "").replace(" ", "-")
    return f"[{path}](#{anchor})"


_PATHS = _paths()
