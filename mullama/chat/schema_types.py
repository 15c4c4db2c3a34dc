"""Reads a client's JSON schema: the target of a reference, and the JSON types that a value may have.

Applicators of the same value are looked at together: `$ref`, `allOf`, `anyOf` and `oneOf`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import unquote, urljoin

from mullama.names import JSONValue
from mullama.struct import Struct

TYPES: Final = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_ANNOTATIONS: Final = frozenset(("const", "default", "enum", "example", "examples"))
MAX_DEPTH: Final = 32


class References:
    """The places of one schema that a `$ref` may name: JSON pointers, `$anchor`, and `$id` of an embedded schema."""

    def __init__(self, root: JSONValue) -> None:
        self._root = root
        self._found: dict[str, JSONValue] | None = None
        self._base = ""

    def find(self, reference: str) -> JSONValue:
        """Return the target. Raises `LookupError` for a reference that leads out of the schema or to nothing."""
        document, _, fragment = reference.partition("#")
        inside = self._document(document)
        if fragment and not fragment.startswith("/"):
            return self._named[f"#{unquote(fragment)}"]
        try:
            return _pointed(inside, fragment)
        except LookupError:
            # A definition may have a name with a percent sign in it that was not encoded.
            return _pointed(inside, fragment, decode=str)

    def _document(self, uri: str) -> JSONValue:
        if not uri:
            return self._root
        named = self._named
        return named[uri] if uri in named else named[urljoin(self._base, uri)]

    @property
    def _named(self) -> dict[str, JSONValue]:
        """The embedded schemas by their identifiers, as written and as absolute addresses, and the anchors."""
        if self._found is None:
            self._found = {}
            if isinstance(self._root, Mapping) and isinstance(base := self._root.get("$id"), str):
                self._base = base
            for schema in _mappings(self._root):
                for id in (schema.get("$id"), schema.get("id")):
                    if isinstance(id, str):
                        bare = id.removesuffix("#")
                        self._found.setdefault(bare, schema)
                        self._found.setdefault(urljoin(self._base, bare), schema)
                for key in ("$anchor", "$dynamicAnchor"):
                    if isinstance(name := schema.get(key), str):
                        self._found.setdefault(f"#{name}", schema)
        return self._found


def _pointed(document: JSONValue, pointer: str, decode: Callable[[str], str] = unquote) -> JSONValue:
    """Return the value at a JSON pointer (RFC 6901) in its form for a fragment."""
    found = document
    for part in pointer.split("/")[1:]:
        name = decode(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found[name]
        elif isinstance(found, list | tuple) and name.isascii() and name.isdigit():
            found = found[int(name)]
        else:
            raise LookupError(pointer)
    return found


def _mappings(schema: JSONValue) -> Iterator[Mapping[str, JSONValue]]:
    """Yield the objects of a schema, outer ones first, without those that are values."""
    stack: list[JSONValue] = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            yield value
            stack.extend(part for key, part in value.items() if key not in _ANNOTATIONS)
        elif isinstance(value, list | tuple):
            stack.extend(value)


class ValueTypes(Struct, frozen=True):
    """The types that a value may have, and its possible values where the schema lists them."""

    types: frozenset[str] = TYPES
    values: tuple[JSONValue, ...] | None = None

    def both(self, other: ValueTypes) -> ValueTypes:
        """Return the types of a value that must fit both."""
        types = common(self.types, other.types)
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            texts = {json.dumps(value) for value in other.values}
            values = tuple(value for value in self.values if json.dumps(value) in texts)
        if values is not None:
            values = tuple(value for value in values if common(frozenset((type_of(value),)), types))
        return ValueTypes(types, values)

    @property
    def known(self) -> bool:
        """True when the schema says anything about the type."""
        return self.types != TYPES or self.values is not None

    @property
    def text_only(self) -> bool:
        """True for any string and nothing else."""
        return self.types == {"string"} and self.values is None


_NOTHING: Final = ValueTypes(frozenset(), ())


def common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the types in both; each integer is a number."""
    integer = ("integer" in one and "number" in other) or ("number" in one and "integer" in other)
    return (one & other) | (frozenset(("integer",)) if integer else frozenset())


class SchemaTypes:
    """The types of the values that the parts of one schema accept. A part that cannot be read accepts all.

    implied: `properties` without `type` means an object, as its author means it. JSON Schema also accepts any value
    that is no object there.
    """

    def __init__(self, root: JSONValue, *, implied: bool = True) -> None:
        self._root = root
        self._implied = implied
        self.references = References(root)
        # The schemas are kept with their types, because the identity of one that is gone may be used again.
        self._known: dict[tuple[int, str | None], tuple[JSONValue, ValueTypes]] = {}

    def of(self, schema: JSONValue) -> ValueTypes:
        """Return the types of a value of this part."""
        return self._looked_up(schema, None, 0)

    def of_property(self, name: str) -> ValueTypes:
        """Return the types of a property of the root, wherever the schema describes it."""
        return self._looked_up(self._root, name, 0)

    def _looked_up(self, schema: JSONValue, name: str | None, depth: int) -> ValueTypes:
        """Return the types of a value, or of its property `name`. Each part is read once, so cycles end."""
        if schema is False:
            return _NOTHING
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return ValueTypes()
        key = (id(schema), name)
        if key not in self._known:
            self._known[key] = (schema, ValueTypes())
            self._known[key] = (schema, self._read(schema, name, depth))
        return self._known[key][1]

    def _read(self, schema: Mapping[str, JSONValue], name: str | None, depth: int) -> ValueTypes:
        found = _own(schema, self._implied) if name is None else self._own_property(schema, name)
        for inner in self._targets(schema):
            found = found.both(self._looked_up(inner, name, depth + 1))
        for branches in _groups(schema):
            described = [self._looked_up(branch, name, depth + 1) for branch in branches]
            if name is not None:
                described = [one for one in described if one.known]
            if described:
                found = found.both(_either(described))
        if name is None and schema.get("nullable") is True:
            found = _either([found, _listed((None,))])
        return found

    def _own_property(self, schema: Mapping[str, JSONValue], name: str) -> ValueTypes:
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and name in properties:
            return self.of(properties[name])
        return self.of(schema.get("additionalProperties", True))

    def _targets(self, schema: Mapping[str, JSONValue]) -> Iterator[JSONValue]:
        """Yield the schemas that the same value must fit too."""
        if isinstance(reference := schema.get("$ref"), str):
            with suppress(LookupError):
                yield self.references.find(reference)
        if isinstance(parts := schema.get("allOf"), list | tuple):
            yield from parts


def _own(schema: Mapping[str, JSONValue], implied: bool) -> ValueTypes:
    """Return the types by the keywords of the schema itself."""
    found = ValueTypes(_named_types(schema.get("type")))
    if implied and not found.known and isinstance(schema.get("properties"), Mapping):
        found = ValueTypes(frozenset(("object",)))
    if "const" in schema:
        return found.both(_listed((schema["const"],)))
    if isinstance(options := schema.get("enum"), list | tuple):
        return found.both(_listed(options))
    return found


def _either(several: Sequence[ValueTypes]) -> ValueTypes:
    """Return the types of a value that must fit one of these."""
    types = frozenset(kind for one in several for kind in one.types)
    if any(one.values is None for one in several):
        return ValueTypes(types)
    return ValueTypes(types, tuple(value for one in several for value in one.values or ()))


def _named_types(kind: JSONValue) -> frozenset[str]:
    kinds = (kind,) if isinstance(kind, str) else kind if isinstance(kind, list | tuple) else ()
    named = frozenset(one for one in kinds if isinstance(one, str)) & TYPES
    return named or TYPES


def _listed(values: Sequence[JSONValue]) -> ValueTypes:
    return ValueTypes(frozenset(map(type_of, values)), tuple(values))


def type_of(value: JSONValue) -> str:
    """Return the JSON type of a value; a number without a fraction is an integer."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case Mapping():
            return "object"
        case _:
            return "array"


def _groups(schema: Mapping[str, JSONValue]) -> Iterator[Sequence[JSONValue]]:
    """Yield the lists of schemas of which the same value must fit one."""
    for key in ("anyOf", "oneOf"):
        if isinstance(parts := schema.get(key), list | tuple) and parts:
            yield parts
