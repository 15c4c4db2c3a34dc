"""Typed values as JSON and back, by msgspec: the one codec of worker messages, plans, lock files and facts.

Types are frozen dataclasses or `msgspec.Struct`. A value that does not fit its type is an `Invalid` that names the
field. A class with a `parse` class method and a `str` form travels as that text.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from mullama.errors import Invalid

T = TypeVar("T")


def to_tree(value: object) -> Any:
    """Convert a typed value to dicts, lists and scalars that `json.dumps` accepts."""
    return msgspec.to_builtins(value, enc_hook=str)


def from_tree(kind: type[T], tree: object, name: str) -> T:
    """Convert dicts, lists and scalars to a value of the type.

    name: the thing that is read, for messages.

    Raises `Invalid` for a missing field, a wrong type or a value out of range.
    """
    try:
        return msgspec.convert(tree, kind, dec_hook=_parse)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Invalid(_message(name, error)) from error


def encode(value: object) -> bytes:
    """Encode a typed value as compact UTF-8 JSON."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(kind: type[T], data: bytes | memoryview, name: str) -> T:
    """Decode UTF-8 JSON to a value of the type; raise `Invalid` as `from_tree` does, and for text that is not JSON."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_parse)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(_message(name, error)) from error


def _parse(kind: type, text: Any) -> Any:
    parse = getattr(kind, "parse", None)
    if parse is None:
        raise NotImplementedError(f"{kind.__name__} has no parse method")
    try:
        return parse(text)
    except Invalid as error:
        raise msgspec.ValidationError(str(error)) from error


def _message(name: str, error: Exception) -> str:
    """`NAME.field: Expected int, got str` from msgspec's `Expected int, got str - at $.field`."""
    text, _, place = str(error).partition(" - at `$")
    return f"{name}{place.rstrip('`')}: {text or type(error).__name__}"
