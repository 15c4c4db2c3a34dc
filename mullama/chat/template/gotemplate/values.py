"""The values of Go templates: how Go prints them, and their truth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from mullama.chat.template.fuel import OutOfFuel
from mullama.names import JSONValue
from mullama.struct import Struct, field


class StructValue(Struct, frozen=True):
    """A struct: its fields by name, and its JSON form for printing."""

    fields: Mapping[str, object]
    json: JSONValue = None


class JsonMap(dict[str, object]):
    """A map that prints as JSON, in its own order."""


class JsonList(list[object]):
    """A list that prints as JSON."""


class Missing(Struct):
    """A missing field: it prints as nothing and is false."""

    name: str = field(default="")


def is_true(value: object) -> bool:
    """Return Go's truth: not false, zero, nil or empty; a struct is always true."""
    if isinstance(value, StructValue):
        return True
    return bool(value) and not isinstance(value, Missing)


def plain_json(value: object) -> object:
    """Return the JSON value of a value."""
    if isinstance(value, StructValue):
        return value.json
    if isinstance(value, Missing):
        return None
    if isinstance(value, Mapping):
        items = value.items() if isinstance(value, JsonMap) else sorted(value.items())
        return {str(key): plain_json(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value


_HTML = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def to_json(value: object) -> str:
    """Return compact JSON as Go's encoder writes it, with its HTML escapes."""
    text = json.dumps(plain_json(value), ensure_ascii=False, separators=(",", ":"))
    return text.translate(_HTML)


def to_text(value: object, depth: int = 0) -> str:
    """Return a value as Go prints it by default."""
    if depth > 32:
        raise OutOfFuel("it prints a value that is nested too deeply")
    match value:
        case str():
            return value
        case Missing():
            return ""
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return number_text(value)
        case JsonMap() | JsonList() | StructValue():
            return to_json(value)
        case Mapping():
            inner = " ".join(f"{k}:{to_text(v, depth + 1)}" for k, v in sorted(value.items()))
            return f"map[{inner}]"
        case list() | tuple():
            return "[" + " ".join(to_text(item, depth + 1) for item in value) + "]"
        case _:
            return str(value)


def number_text(value: float) -> str:
    """Return a float as %v prints it: shortest form, with an exponent from 21 digits on."""
    if not math.isfinite(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)
