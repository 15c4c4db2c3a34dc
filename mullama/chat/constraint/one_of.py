"""Proves that no value matches two branches of a `oneOf`, so that it can be enforced as `anyOf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from mullama.chat.constraint.merge import Place
from mullama.chat.schema_types import SchemaTypes, ValueTypes


def exclusive(branches: Sequence[Sequence[Sequence[Place]]], types: SchemaTypes) -> bool:
    """Return True if no value that the grammar lets be written for one branch fits another.

    branches: the alternatives of each branch, each as the schemas that the value must fit together.
    """
    described = [[_Facts(alternative, types) for alternative in branch] for branch in branches]
    return all(
        one.excludes(other) and other.excludes(one)
        for first, second in combinations(described, 2)
        for one in first
        for other in second
    )


class _Facts:
    """The facts about one alternative that can tell it from another."""

    def __init__(self, alternative: Sequence[Place], types: SchemaTypes) -> None:
        schemas = [place.schema for place in alternative if isinstance(place.schema, Mapping)]
        self._value = _common([types.of(schema) for schema in schemas])
        self._required: set[str] = set()
        self._properties: dict[str, ValueTypes] = {}
        self._open = any("patternProperties" in schema for schema in schemas)
        self._refuses = False
        for schema in schemas:
            if isinstance(names := schema.get("required"), list | tuple):
                self._required |= {name for name in names if isinstance(name, str)}
            if isinstance(properties := schema.get("properties"), Mapping):
                for name, part in properties.items():
                    self._properties[name] = self._properties.get(name, ValueTypes()).both(types.of(part))
            self._refuses |= schema.get("additionalProperties") is False
            self._open |= schema.get("additionalProperties", False) is not False

    @property
    def _written(self) -> ValueTypes:
        """The types that are written: an object where the schema has `properties` and names no type."""
        return self._value if self._value.known or not self._properties else ValueTypes(frozenset(("object",)))

    def excludes(self, other: _Facts) -> bool:
        """Return True if no value that is written for this alternative fits the other one.

        An object is written with the listed properties alone, unless the schema allows more.
        """
        if _apart(self._written, other._value):
            return True
        if self._written.types != {"object"}:
            return False
        if not self._open and self._properties and not other._required <= self._properties.keys():
            return True
        refused = other._refuses and not other._open
        return any(
            _apart(self._properties.get(name, ValueTypes()), other._properties[name])
            if name in other._properties
            else refused
            for name in self._required
        )


def _common(several: Sequence[ValueTypes]) -> ValueTypes:
    made = ValueTypes()
    for one in several:
        made = made.both(one)
    return made


def _apart(one: ValueTypes, other: ValueTypes) -> bool:
    """Return True if no value is of both."""
    both = one.both(other)
    return not both.types or both.values == ()
