"""The base class of mullama's values and the functions on them, by msgspec.

A process defines some 300 of these classes at its start. A frozen dataclass with slots takes a millisecond to define, a
struct a thirtieth of it; fields, `==`, `hash`, `repr` and `match` are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mullama.imports import import_without

# msgspec prefers the helpers of typing_extensions, whose import takes half as long again as its own. Those of typing
# are the same since Python 3.11, and msgspec uses them where the other module has none. It imports uuid, which asks
# platform for the name of the system and for nothing else.
import_without({"typing_extensions": {}, "platform": {"system": sys.platform.capitalize}}, "msgspec.structs")

from msgspec import NODEFAULT, Struct, field  # noqa: E402 - after the call
from msgspec.structs import asdict, force_setattr, replace  # noqa: E402

__all__ = [
    "Struct", "asdict", "defaults", "equality_without", "field", "field_names", "force_setattr", "replace",
    "repr_without",
]  # fmt: skip


def field_names(of: Struct | type[Struct]) -> tuple[str, ...]:
    """Return the names of the fields in the order of their declaration."""
    return of.__struct_fields__


def defaults(of: type[Struct]) -> dict[str, Any]:
    """Return the defaults of the fields that have one."""
    given = of.__struct_defaults__  # those of the last fields
    named = zip(of.__struct_fields__[len(of.__struct_fields__) - len(given) :], given, strict=True)
    # msgspec keeps a factory in an object with the attribute `factory`.
    return {name: getattr(item, "factory", lambda item=item: item)() for name, item in named if item is not NODEFAULT}


def equality_without(*names: str) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """Return `__eq__` and `__hash__` of a struct, by all of its fields but these."""

    def compared(value: Struct) -> tuple[object, ...]:
        return tuple(getattr(value, name) for name in field_names(value) if name not in names)

    def equal(one: Struct, other: object) -> bool:
        return type(other) is type(one) and compared(one) == compared(other)

    return equal, lambda value: hash(compared(value))


def repr_without(*names: str) -> Callable[[Any], str]:
    """Return the `__repr__` of a struct without these fields, such as secrets."""

    def text(value: Struct) -> str:
        shown = (f"{name}={getattr(value, name)!r}" for name in field_names(value) if name not in names)
        return f"{type(value).__name__}({', '.join(shown)})"

    return text
