"""Typed reading of request bodies: each field has a type, a range and a schema, said once.

`null` is the same as absent. Fields that nobody asks for never fail. A value that does not fit is an
`Invalid` error that names the field by its path, such as `messages[3].content[0].text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mullama.dialects import schema
from mullama.dialects.schema import Schema
from mullama.errors import Invalid
from mullama.names import JSONValue

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Convert = Callable[[JSONValue, str], T]
"""From a value and its path to what it means, or `Invalid`."""

MOST_INTEGER = 2**53
MOST_NAME = 512


@dataclass(frozen=True, slots=True)
class Field(Generic[T_co]):
    """One member of an object: its name, what it means, and the JSON Schema of what is accepted."""

    name: str
    convert: Callable[[JSONValue, str], T_co]
    schema: Schema

    def named(self, name: str) -> Field[T_co]:
        """The same field under another spelling."""
        return Field(name, self.convert, self.schema)


class Body:
    """One JSON object of a request, read field by field."""

    __slots__ = ("_values", "path")

    def __init__(self, value: JSONValue, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise unfit(path or "the body", "a JSON object")
        self._values = value
        self.path = path

    def at(self, name: str) -> str:
        """The path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, field: Field[T]) -> T | None:
        """What the field says, None when it is absent or null."""
        value = self._values.get(field.name)
        return None if value is None else field.convert(value, self.at(field.name))

    def need(self, field: Field[T], message: str = "") -> T:
        """What the field says; absent it is an error, in the dialect's own words where it has some."""
        value = self.get(field)
        if value is None:
            raise Invalid(message or f"{self.at(field.name)} is required", field=self.at(field.name))
        return value

    def first(self, *fields: Field[T]) -> T | None:
        """What the first of these fields that is present says."""
        for field in fields:
            if (value := self.get(field)) is not None:
                return value
        return None

    def raw(self, name: str) -> JSONValue:
        """The value as it came, None when absent."""
        return self._values.get(name)

    def has(self, *names: str) -> bool:
        """Whether any of these members is there and not null."""
        return any(self._values.get(name) is not None for name in names)

    def child(self, name: str) -> Body | None:
        """The object under this name."""
        value = self._values.get(name)
        return None if value is None else Body(value, self.at(name))

    def names(self) -> Iterator[str]:
        """The names of all members that are not null."""
        return (name for name, value in self._values.items() if value is not None)

    def picked(self, *names: str) -> dict[str, JSONValue]:
        """These members as they came, where present."""
        return {n: value for n in names if (value := self._values.get(n)) is not None}


def body_of(value: JSONValue) -> Body:
    """Return a request body to read. The server has refused NaN, infinities, lone surrogates and deep nesting."""
    if value is None:
        raise Invalid("missing request body", hint="send a JSON object")
    return Body(value)


def unfit(path: str, wanted: str) -> Invalid:
    """The error of a value that is not what it should be."""
    return Invalid(f"{path} must be {wanted}", field=path)


# Converters: a value and its path in, the meaning out.


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
    """An integer in the range; 3.0 is one, true is not."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MOST_INTEGER:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise unfit(path, f"an integer {_between(low, high)}")
    return value


def to_number(value: JSONValue, path: str, low: float, high: float) -> float:
    """A finite number in the range."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise unfit(path, f"a number {_between(low, high)}")
    return float(value)


def to_list(value: JSONValue, path: str, convert: Convert[T], most: int) -> tuple[T, ...]:
    """Every item converted, under its own path."""
    if not isinstance(value, list | tuple):
        raise unfit(path, "a list")
    if len(value) > most:
        raise unfit(path, f"a list of at most {most} items, not {len(value)}")
    return tuple(convert(item, f"{path}[{i}]") for i, item in enumerate(value))


def _between(low: float, high: float) -> str:
    if high >= MOST_INTEGER and low <= -MOST_INTEGER:
        return "of at most 53 bits"
    return f"of at least {low}" if high >= MOST_INTEGER else f"between {low} and {high}"


# Fields of the usual kinds.


def text(name: str, most: int | None = None) -> Field[str]:
    """A string of at most `most` characters."""

    def convert(value: JSONValue, path: str) -> str:
        said = to_text(value, path)
        if most is not None and len(said) > most:
            raise unfit(path, f"at most {most} characters long")
        return said

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
    """One of a closed set of words; any other is refused, because it asks for something."""
    allowed = tuple(values)

    def convert(value: JSONValue, path: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise unfit(path, f"one of {', '.join(allowed)}, not {str(value)[:40]!r}")
        return value

    return Field(name, convert, schema.one_of(*allowed))


def record(name: str, shape: Schema = schema.RECORD) -> Field[Mapping[str, JSONValue]]:
    """An object that is kept as it came."""
    return Field(name, to_record, shape)


def many(name: str, convert: Convert[T], shape: Schema, most: int) -> Field[tuple[T, ...]]:
    """A list whose items are converted one by one."""
    return Field(
        name,
        lambda value, path: to_list(value, path, convert, most),
        schema.listed(shape, most=most),
    )


def request_schema(*fields: Field[object], required: str = "") -> Schema:
    """The schema of an object with these fields, each of which may be null unless it is required."""
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
    """The model that a request has to name."""
    model = body.get(MODEL)
    if not model:
        raise Invalid("model is required", field=body.at(MODEL.name))
    return model
