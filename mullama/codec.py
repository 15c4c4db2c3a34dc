"""Typed values as trees of JSON values and back, by msgspec: the one codec of plans, lock files and facts.

Types are frozen dataclasses or `msgspec.Struct`. A value that does not fit its type is an `Invalid` that names the
field. A class with a `parse` class method and a `str` form travels as that text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from mullama.errors import Invalid

T = TypeVar("T")
Bounds = msgspec.Meta
"""Bounds and description of a field, in `Annotated`, see `object_schema`."""


def to_tree(value: object) -> Any:
    """Convert a typed value to dicts, lists and scalars that `json.dumps` accepts."""
    return msgspec.to_builtins(value, enc_hook=str)


def to_bytes(value: object) -> bytes:
    """Convert a typed value to bytes that are equal for equal values, for a digest."""
    return msgspec.msgpack.encode(value, enc_hook=str)


def from_tree(kind: type[T], tree: object, name: str, *, only_known: bool = False) -> T:
    """Convert dicts, lists and scalars to a value of the type.

    name: the thing that is read, for messages. only_known: refuse fields that a dataclass does not have.

    Raises `Invalid` for a missing field, a wrong type or a value out of range.
    """
    try:
        value = msgspec.convert(tree, kind, dec_hook=_parse)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Invalid(_message(name, error)) from error
    if only_known and (field := _unknown_field(tree, to_tree(value))):
        raise Invalid(f"{name} has the unknown field {field!r}", hint="it was written by another version")
    return value


def from_json(kind: type[T], data: bytes, name: str) -> T:
    """Convert JSON text to a value of the type; unknown fields are ignored. Raises `Invalid` as `from_tree`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(_message(name, error)) from error


def object_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a struct whose fields are no structs; it allows no other fields."""
    _, parts = msgspec.json.schema_components([kind])
    schema = {name: value for name, value in parts[kind.__name__].items() if name != "title"}
    return {**schema, "additionalProperties": False}


def _parse(kind: type, text: Any) -> Any:
    parse = getattr(kind, "parse", None)
    if parse is None:
        raise NotImplementedError(f"{kind.__name__} has no parse method")
    try:
        return parse(text)
    except Invalid as error:
        raise msgspec.ValidationError(str(error)) from error


def _unknown_field(tree: object, known: object) -> str | None:
    """Return the first field of a tree that the tree of the value read from it lacks."""
    if isinstance(tree, dict) and isinstance(known, dict):
        unknown = (str(key) for key in tree if key not in known)
        return next(unknown, None) or _first(_unknown_field(item, known[key]) for key, item in tree.items())
    if isinstance(tree, list) and isinstance(known, (list, tuple)):
        return _first(map(_unknown_field, tree, known))
    return None


def _first(found: Iterable[str | None]) -> str | None:
    return next((field for field in found if field), None)


def _message(name: str, error: Exception) -> str:
    """`NAME.field: Expected int, got str` from msgspec's `Expected int, got str - at $.field`."""
    text, _, place = str(error).partition(" - at `$")
    return f"{name}{place.rstrip('`')}: {text or type(error).__name__}"
