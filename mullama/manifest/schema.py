"""The JSON Schema (draft-07) of a manifest file, for editors and other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mullama.manifest.field_docs import DescribedField, described
from mullama.manifest.key_tree import AUTOMATIC, SPELLINGS
from mullama.manifest.layers import NOT_IN_DEFAULTS
from mullama.manifest.nodes import longest_prefix
from mullama.manifest.spec.definitions import Block, Manifest, McpServer, Model, Parameters, Route, SecretRef, Template

JSON = dict[str, Any]

SCHEMA_ID = "mullama.v1.schema.json"
_REFS = "#/definitions/"
_REFERENCE: JSON = {"type": "string", "pattern": r"\$\{"}
_NULL: JSON = {"type": "null"}
_TEXT: JSON = {"type": "string", "minLength": 1}
_NOTES: JSON = {"^x-": {}}


def json_schema(costs: Mapping[str, str]) -> JSON:
    """Return the schema. `costs` has the cost of a change by dotted path prefix, for x-mullama-cost."""
    raw = Manifest.model_json_schema(by_alias=True, ref_template=_REFS + "{model}")
    definitions = raw.pop("$defs")
    definitions["Manifest"] = raw
    for block, fields in _by_block().items():
        definition = definitions[block.__name__]
        properties = definition["properties"]
        secret = block is SecretRef
        definition["properties"] = {f.key: _property(f, properties[f.key], costs, secret) for f in fields}
        definition["patternProperties"] = _NOTES
        definition.pop("title", None)
    _written_forms(definitions)
    _add_patches(definitions)
    manifest = definitions.pop("Manifest")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": SCHEMA_ID,
        "title": "mullama manifest v1",
        **manifest,
        "description": "The desired state of a model server.",
        "definitions": dict(sorted(definitions.items())),
    }


def _by_block() -> Mapping[type[Block], list[DescribedField]]:
    blocks: dict[type[Block], list[DescribedField]] = {}
    for field in described():
        blocks.setdefault(field.block, []).append(field)
    return blocks


def _property(field: DescribedField, raw: JSON, costs: Mapping[str, str], secret: bool) -> JSON:
    """Return the schema of a field with description and cost. It may also be null, or an environment reference."""
    kept = {key: raw[key] for key in ("default", "examples") if raw.get(key) not in (None, {}, [])}
    if isinstance(kept.get("default"), dict):
        del kept["default"]  # the fields of a block have its defaults
    value = {key: item for key, item in raw.items() if key not in ("default", "examples", "title")}
    value = _without_null(value)
    fixed = secret or field.path == "mullama"
    cost = longest_prefix(field.path, costs)
    arms = _arms(value if fixed else _loosened(value))
    required = field.block.model_fields[field.name].is_required()
    return {
        "description": field.description,
        **({"x-mullama-cost": cost} if cost else {}),
        **kept,
        **_any_of(arms if required else [*arms, _NULL]),
    }


def _without_null(schema: JSON) -> JSON:
    arms = [arm for arm in schema.get("anyOf", []) if arm != _NULL]
    return schema if not arms else arms[0] if len(arms) == 1 else {**schema, "anyOf": arms}


def _arms(schema: JSON) -> list[JSON]:
    return list(schema["anyOf"]) if set(schema) == {"anyOf"} else [schema]


def _any_of(arms: list[JSON]) -> JSON:
    return arms[0] if len(arms) == 1 else {"anyOf": arms}


def _loosened(schema: JSON) -> JSON:
    """Return the schema with an environment reference as another form of each scalar that is not free text."""
    if "$ref" in schema:
        return schema
    for key in ("anyOf", "oneOf"):
        if key in schema:
            arms = [arm for inner in schema[key] for arm in _arms(_loosened(inner))]
            return {"anyOf": [arm for i, arm in enumerate(arms) if arm not in arms[:i]]}
    match schema.get("type"):
        case "array":
            return {**schema, "items": _loosened(schema["items"])}
        case "object":
            return _loosened_map(schema)
        case "string" if not set(schema) & {"pattern", "enum", "const", "maxLength"}:
            return schema
        case _:
            return {"anyOf": [schema, _REFERENCE]}


def _loosened_map(schema: JSON) -> JSON:
    done = dict(schema)
    if isinstance(values := schema.get("additionalProperties"), dict):
        done["additionalProperties"] = _loosened(values)
    if "patternProperties" in schema:
        done["patternProperties"] = {k: _loosened(v) for k, v in schema["patternProperties"].items()}
        done["additionalProperties"] = False
    return done


def _written_forms(definitions: JSON) -> None:
    """Add the forms that only a manifest file has: short forms, layers, other spellings."""
    root, model = definitions["Manifest"], definitions[Model.__name__]
    parameters = definitions[Parameters.__name__]["properties"]
    for name, (block, key) in SPELLINGS.items():
        target = f"{_REFS}{block.capitalize()}/properties/{key}"
        automatic = [{"const": number} for spelling, number in AUTOMATIC if spelling == name]
        text = f"Modelfile spelling of {block}.{key}."
        parameters[name] = {"description": text, "anyOf": [{"$ref": target}, *automatic]}
    template = model["properties"]["template"]
    for short in (template, model["properties"]["draft"]):
        short["anyOf"] = [_TEXT, *short["anyOf"]]
    definitions[Template.__name__]["oneOf"] = [{"required": [key]} for key in ("text", "file", "go")]
    definitions[SecretRef.__name__]["oneOf"] = [{"required": [key]} for key in ("from_env", "from_file")]
    definitions[McpServer.__name__]["anyOf"] = [{"required": [key]} for key in ("url", "from_host")]
    model["properties"].update(_MODEL_ONLY)
    defaults = {k: v for k, v in model["properties"].items() if k not in NOT_IN_DEFAULTS}
    definitions["Defaults"] = {
        **model,
        "properties": defaults,
        "description": "Fields that are merged below every model.",
    }
    definitions["Defaults"].pop("required")
    model["anyOf"] = [{"required": ["from"]}, {"required": ["like"]}]
    model.pop("required")
    targets = definitions[Route.__name__]["properties"]["to"]
    one = {"anyOf": [_TEXT, targets["items"]]}
    definitions[Route.__name__]["properties"]["to"] = {
        **{key: targets[key] for key in ("description", "x-mullama-cost", "examples") if key in targets},
        "anyOf": [_TEXT, {"type": "array", "items": one, "minItems": 1, "maxItems": targets["maxItems"]}],
    }
    models = next(arm for arm in root["properties"]["models"]["anyOf"] if arm.get("type") == "object")
    models["additionalProperties"] = {"anyOf": [_TEXT, {"$ref": f"{_REFS}Model"}]}
    root["properties"].update(_MANIFEST_ONLY)


_MODEL_ONLY: JSON = {
    "like": {
        "description": "Name of a model whose fields are merged below those of this one; it cannot have `like` itself.",
        "examples": ["qwen3:8b"],
        "anyOf": [_TEXT, _NULL],
    },
    "hardware": {
        "description": "Name of one of hardware.profiles, whose blocks are merged below those of this model.",
        "examples": ["cpu"],
        "anyOf": [_TEXT, _NULL],
    },
}
_MANIFEST_ONLY: JSON = {
    "include": {
        "description": "Further files with models, routes, groups, moved, auth.keys and hardware.profiles. "
        "A remote one is hf:org/repo/file.yaml@revision, which the lock file pins. Duplicate names are errors.",
        "examples": [["models/*.yaml"]],
        "anyOf": [{"type": "array", "items": _TEXT}, _TEXT, _NULL],
    },
    "defaults": {
        "description": "Fields that are merged below every model: maps merge, lists replace, null removes.",
        "anyOf": [{"$ref": f"{_REFS}Defaults"}, _NULL],
    },
    "profiles": {
        "description": "Changes of the manifest, selected with --profile: maps merge, lists replace, null removes.",
        "anyOf": [{"type": "object", "additionalProperties": {"$ref": f"{_REFS}PatchManifest"}}, _NULL],
    },
}


def _add_patches(definitions: JSON) -> None:
    """Add definitions for profiles: the blocks without required fields, and with null for each name."""
    needed = {"Manifest"}
    while more := {
        name
        for name, definition in definitions.items()
        if name not in needed
        and name not in (Template.__name__, SecretRef.__name__)
        and (_demands(definition) or needed & set(_inner_refs(definition)))
    }:
        needed |= more
    reachable = needed & _reachable(definitions, needed)
    patches = {f"Patch{name}": _patch(definitions[name], reachable) for name in reachable}
    for key in ("mullama", "include", "profiles"):
        patches["PatchManifest"]["properties"].pop(key)
    definitions.update(patches)


def _demands(definition: JSON) -> bool:
    return bool(definition.get("required")) or "required" in str(definition.get("anyOf", ""))


def _reachable(definitions: JSON, needed: set[str]) -> set[str]:
    found, todo = {"Manifest"}, ["Manifest"]
    while todo:
        for name in _inner_refs(definitions[todo.pop()]):
            if name in needed and name not in found:
                found.add(name)
                todo.append(name)
    return found


def _inner_refs(schema: Any) -> Iterator[str]:
    """Yield the definitions that a schema refers to, except inside of lists, which profiles replace."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(_REFS)
        for key, value in schema.items():
            if key not in ("items", "examples", "default"):
                yield from _inner_refs(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _inner_refs(value)


def _patch(definition: JSON, renamed: set[str]) -> JSON:
    done = {k: v for k, v in definition.items() if k not in ("required", "anyOf")}

    def change(schema: Any) -> Any:
        if isinstance(schema, list):
            return [change(value) for value in schema]
        if not isinstance(schema, dict):
            return schema
        if schema.get("$ref", "").removeprefix(_REFS) in renamed:
            return {"$ref": f"{_REFS}Patch{schema['$ref'].removeprefix(_REFS)}"}
        kept = {k: v if k in ("items", "examples", "default") else change(v) for k, v in schema.items()}
        if isinstance(values := kept.get("additionalProperties"), dict):
            kept["additionalProperties"] = {"anyOf": [*_arms(values), _NULL]}
        return kept

    done["properties"] = change(done["properties"])
    return done
