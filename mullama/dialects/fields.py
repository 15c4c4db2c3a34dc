"""Typed reading of request bodies: a field has its type, range and JSON Schema in one place.

`null` is the same as absent. A field that no decoder reads never fails. A value of the wrong type or range is an
`Invalid` error that names the field by its path, such as `messages[3].content[0].text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from mullama.dialects import schema
from mullama.dialects.schema import Schema
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Convert = Callable[[JSONValue, str], T]
"""Converts a value, given its path, or raises `Invalid`."""

MOST_INTEGER = 2**53
MOST_NAME = 512


class Field(Struct, Generic[T_co], frozen=True):
    """One member of an object: its name, its converter, and the JSON Schema of the values that it accepts."""

    name: str
    convert: Callable[[JSONValue, str], T_co]
    schema: Schema

    def named(self, name: str) -> Field[T_co]:
        """Return the same field under another name."""
        return Field(name, self.convert, self.schema)


class Body:
    """Reads one JSON object of a request field by field."""

    __slots__ = ("_values", "path")

    def __init__(self, value: JSONValue, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise unfit(path or "the body", "a JSON object")
        self._values = value
        self.path = path

    def at(self, name: str) -> str:
        """Return the path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, field: Field[T]) -> T | None:
        """Return the value of the field, None when it is absent or null."""
        value = self._values.get(field.name)
        return None if value is None else field.convert(value, self.at(field.name))

    def need(self, field: Field[T], message: str = "") -> T:
        """Return the value of the field, or raise `Invalid` with the dialect's message when it is absent."""
        value = self.get(field)
        if value is None:
            raise Invalid(message or f"{self.at(field.name)} is required", field=self.at(field.name))
        return value

    def first(self, *fields: Field[T]) -> T | None:
        """Return the value of the first of these fields that is present."""
        for field in fields:
            if (value := self.get(field)) is not None:
                return value
        return None

    def raw(self, name: str) -> JSONValue:
        """Return the unconverted value, None when it is absent."""
        return self._values.get(name)

    def has(self, *names: str) -> bool:
        """Return True if any of these members is present and not null."""
        return any(self._values.get(name) is not None for name in names)

    def holds(self, name: str) -> bool:
        """Return True if this member is present, also as null."""
        return name in self._values

    def child(self, name: str) -> Body | None:
        """Return the object under this name."""
        value = self._values.get(name)
        return None if value is None else Body(value, self.at(name))

    def names(self) -> Iterator[str]:
        """Return the names of all members that are not null."""
        return (name for name, value in self._values.items() if value is not None)

    def picked(self, *names: str) -> dict[str, JSONValue]:
        """Return the unconverted values of these members, where present."""
        return {n: value for n in names if (value := self._values.get(n)) is not None}


def body_of(value: JSONValue) -> Body:
    """Return a request body to read. The server has refused NaN, infinities, lone surrogates and deep nesting."""
    if value is None:
        raise Invalid("missing request body", hint="send a JSON object")
    return Body(value)


def unfit(path: str, wanted: str) -> Invalid:
    """Return the error for a value of the wrong type or range."""
    return Invalid(f"{path} must be {wanted}", field=path)


# Converters of a value, given its path.


def to_text(value: JSONValue, path: str) -> str:
    if not isinstance(value, str):
        raise unfit(path, "a string")
    return value


def to_flag(value: JSONValue, path: str) -> bool:
    if not isinstance(value, bool):
        raise unfit(path, "true or false")
    return value


def to_record(value: JSONValue, path: str) -> Mapping[str, JSONValue]:
    if not isinstance(value, Mapping):
        raise unfit(path, "an object")
    return value


def to_integer(value: JSONValue, path: str, low: int, high: int) -> int:
    """Return an integer in the range; 3.0 is one, true is not."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MOST_INTEGER:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise unfit(path, f"an integer {_between(low, high)}")
    return value


def to_number(value: JSONValue, path: str, low: float, high: float) -> float:
    """Return a number in the range."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise unfit(path, f"a number {_between(low, high)}")
    return float(value)


def to_list(value: JSONValue, path: str, convert: Convert[T], most: int) -> tuple[T, ...]:
    """Convert every item, each under its own path."""
    if not isinstance(value, list | tuple):
        raise unfit(path, "a list")
    if len(value) > most:
        raise unfit(path, f"a list of at most {most} items, not {len(value)}")
    return tuple(convert(item, f"{path}[{i}]") for i, item in enumerate(value))


def _between(low: float, high: float) -> str:
    if high >= MOST_INTEGER and low <= -MOST_INTEGER:
        return "of at most 53 bits"
    return f"of at least {low}" if high >= MOST_INTEGER else f"between {low} and {high}"


# Fields of common types.


def text(name: str, most: int | None = None) -> Field[str]:
    """Return a field for a string of at most `most` characters."""

    def convert(value: JSONValue, path: str) -> str:
        string = to_text(value, path)
        if most is not None and len(string) > most:
            raise unfit(path, f"at most {most} characters long")
        return string

    bound: Schema = {"maxLength": most} if most is not None else {}
    return Field(name, convert, {**schema.STRING, **bound})


def flag(name: str) -> Field[bool]:
    return Field(name, to_flag, schema.BOOLEAN)


def integer(name: str, low: int = -MOST_INTEGER, high: int = MOST_INTEGER) -> Field[int]:
    return Field(
        name,
        lambda value, path: to_integer(value, path, low, high),
        {"type": "integer", "minimum": low, "maximum": high},
    )


def number(name: str, low: float, high: float) -> Field[float]:
    return Field(
        name,
        lambda value, path: to_number(value, path, low, high),
        {"type": "number", "minimum": low, "maximum": high},
    )


def choice(name: str, values: Iterable[str]) -> Field[str]:
    """Return a field for one of a closed set of words. Another word is refused, because it would have an effect."""
    allowed = tuple(values)

    def convert(value: JSONValue, path: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise unfit(path, f"one of {', '.join(allowed)}, not {str(value)[:40]!r}")
        return value

    return Field(name, convert, schema.one_of(*allowed))


def record(name: str, shape: Schema = schema.RECORD) -> Field[Mapping[str, JSONValue]]:
    """Return a field for an object that is kept unconverted."""
    return Field(name, to_record, shape)


def many(name: str, convert: Convert[T], shape: Schema, most: int) -> Field[tuple[T, ...]]:
    """Return a field for a list whose items are converted one by one."""
    return Field(
        name,
        lambda value, path: to_list(value, path, convert, most),
        schema.listed(shape, most=most),
    )


def request_schema(*fields: Field[object], required: str = "") -> Schema:
    """Return the schema of an object with these fields; each may be null unless it is required."""
    needed = set(required.split())
    properties = {f.name: f.schema if f.name in needed else schema.nullable(f.schema) for f in fields}
    return {
        "type": "object",
        "properties": properties,
        **({"required": sorted(needed)} if needed else {}),
    }


MODEL = text("model", MOST_NAME)
STREAM = flag("stream")


def model_named(body: Body) -> str:
    """Return the model of a request; "", the default model, for an absent, null or empty name."""
    return body.get(MODEL) or ""
