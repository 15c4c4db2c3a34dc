"""The base class of mullama's values and the functions on them, by msgspec.

A process defines some 300 of these classes at its start. A frozen dataclass with slots takes a millisecond to define, a
struct a thirtieth of it; fields, `==`, `hash`, `repr` and `match` are the same. A class is a dataclass only where its
`repr` must leave out a field, because it is secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import NODEFAULT, Struct, field
from msgspec.structs import FieldInfo, asdict, fields, replace

__all__ = ["Struct", "asdict", "defaults", "equality_without", "field", "field_names", "replace"]


def field_names(of: Struct | type[Struct]) -> tuple[str, ...]:
    """Return the names of the fields in the order of their declaration."""
    return of.__struct_fields__


def defaults(of: type[Struct]) -> dict[str, Any]:
    """Return the defaults of the fields that have one."""
    return {one.name: _default(one) for one in fields(of) if not one.required}


def _default(one: FieldInfo) -> Any:
    return one.default if one.default_factory is NODEFAULT else one.default_factory()


def equality_without(*names: str) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """Return `__eq__` and `__hash__` of a struct, by all of its fields but these."""

    def compared(value: Struct) -> tuple[object, ...]:
        return tuple(getattr(value, name) for name in field_names(value) if name not in names)

    def equal(one: Struct, other: object) -> bool:
        return type(other) is type(one) and compared(one) == compared(other)

    return equal, lambda value: hash(compared(value))
