"""Builders of JSON Schema (2020-12) values for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.names import JSONValue

Schema = Mapping[str, JSONValue]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}
RECORD: Schema = {"type": "object"}
TIME: Schema = {"type": "string", "format": "date-time"}


def listed(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    """Return the schema of an array of `items`."""
    bounds: dict[str, JSONValue] = {"minItems": least} if least else {}
    if most is not None:
        bounds["maxItems"] = most
    return {"type": "array", "items": items, **bounds}


def record(required: str = "", /, **properties: Schema) -> Schema:
    """Return the schema of an object; `required` lists names separated by spaces. Other members are allowed."""
    names = required.split()
    return {"type": "object", "properties": properties, **({"required": names} if names else {})}


def exact(**properties: Schema) -> Schema:
    """Return the schema of an object that always has all of these members."""
    return record(" ".join(properties), **properties)


def mapped(values: Schema) -> Schema:
    """Return the schema of an object with any keys and values of one type."""
    return {"type": "object", "additionalProperties": values}


def either(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def nullable(schema: Schema) -> Schema:
    """Return the schema of the same values or null."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, NULL]} if schema else schema


def constant(value: JSONValue) -> Schema:
    return {"const": value}


def one_of(*values: JSONValue) -> Schema:
    return {"enum": list(values)}


def joined(*objects: Schema) -> Schema:
    """Return one object schema with the properties and requirements of several."""
    properties: dict[str, JSONValue] = {}
    required: list[JSONValue] = []
    for one in objects:
        inner = one.get("properties")
        needed = one.get("required")
        properties.update(inner if isinstance(inner, Mapping) else {})
        required += needed if isinstance(needed, list) else []
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
    }
