"""Merges the keywords of schemas that the same value must fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from mullama.chat.schema_types import TYPES, common, type_of
from mullama.names import JSONValue
from mullama.struct import Struct, field

# A larger number ends the search for digits at the limits of the grammar library, which counts with 64 bits.
LARGEST: Final = 9 * 10**18
# Numbers between bounds have this many decimals. Without a limit, small models write digits to the end of the answer.
DECIMALS: Final = 9
_MOST_DECIMALS: Final = 10  # of a client's multipleOf, by the grammar library
_HIGHEST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_LOWEST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_COUNTED: Final = (
    ("string", "minLength", "maxLength"),
    ("array", "minItems", "maxItems"),
    ("object", "minProperties", "maxProperties"),
)


class Unsatisfiable(Exception):
    """No value fits a schema."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


class Place(Struct, frozen=True):
    """A part of a client's schema and its JSON pointer."""

    schema: JSONValue
    path: str

    def at(self, name: str) -> str:
        """Return the pointer of a member."""
        return f"{self.path}/{name.replace('~', '~0').replace('/', '~1')}"


class Part(Struct):
    """The keywords of one schema that speak of the members of a value."""

    properties: dict[str, Place] | None = None
    patterns: dict[str, Place] = field(default_factory=dict)
    additional: Place | None = None
    prefix: Sequence[Place] = ()
    items: Place | None = None

    def of(self, name: str) -> Iterator[Place]:
        """Yield the schemas of the property `name`."""
        listed = (self.properties or {}).get(name)
        if listed is not None:
            yield listed
        matched = [part for pattern, part in self.patterns.items() if _certainly(pattern, name)]
        yield from matched
        if listed is None and not matched and self.additional is not None:
            yield self.additional

    def element(self, index: int) -> Iterator[Place]:
        """Yield the schema of one element of a list."""
        if index < len(self.prefix):
            yield self.prefix[index]
        elif self.items is not None:
            yield self.items


def _certainly(pattern: str, name: str) -> bool:
    """Return True if the name of a property matches a simple pattern; another could take exponential time."""
    simple = "(" not in pattern and sum(pattern.count(mark) for mark in "*+?{") <= 2
    return simple and len(name) <= 256 and re.search(pattern, name) is not None


class Merged:
    """The keywords of one value. Raises `Unsatisfiable` for keywords that contradict each other."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.required: dict[str, str] = {}
        self.closed = False
        """No property is allowed that the schema does not name."""
        self._parts: list[Part] = []
        self._types: list[str] | None = None
        self._values: list[JSONValue] | None = None
        self._scalars: dict[str, tuple[JSONValue, str]] = {}
        self._beside: list[dict[str, JSONValue]] = []

    def begin(self) -> Part:
        """Return the record for the keywords of a further schema."""
        self._parts.append(Part())
        return self._parts[-1]

    def limit_type(self, kinds: Sequence[str], path: str) -> None:
        """Allow only these types."""
        before = self._types
        if before is not None:
            both = common(frozenset(before), frozenset(kinds))
            kinds = [kind for kind in (*kinds, *before) if kind in both]
            if not kinds:
                raise Unsatisfiable(f"the type cannot be {' or '.join(before)} as well", path)
        self._types = list(dict.fromkeys(kinds))

    def allow(self, values: Sequence[JSONValue], path: str) -> None:
        """Allow only these values."""
        if self._values is not None:
            before = {_key(value) for value in self._values}
            values = [value for value in values if _key(value) in before]
        if not values:
            raise Unsatisfiable("no value is left", path)
        self._values = list(values)
        self._scalars.setdefault("enum", (None, path))

    def require(self, names: Sequence[str], path: str) -> None:
        """Require properties of an object."""
        for name in names:
            self.required.setdefault(name, path)

    def put(self, key: str, value: JSONValue, path: str) -> None:
        """Add a keyword of a value without members."""
        before = self._scalars.get(key)
        if before is None:
            self._scalars[key] = (value, path)
        elif key in _HIGHEST or key in _LOWEST:
            choose: Callable[..., JSONValue] = max if key in _HIGHEST else min
            if choose(before[0], value) != before[0]:
                self._scalars[key] = (value, path)
        elif before[0] != value:
            self._beside.append({key: value})

    def put_number(self, key: str, value: float, path: str) -> str:
        """Add a bound or a factor; return the reason why it cannot be enforced, "" when it can."""
        if key == "multipleOf":
            if _decimals(value) > _MOST_DECIMALS or value >= 2**31:
                return f"a factor has at most {_MOST_DECIMALS} decimals and is below 2**31"
        elif abs(value) > LARGEST:
            if (value > 0) == (key in _LOWEST):
                return ""  # the bound of the notation is stricter
            return f"numbers are at most {LARGEST:.0e}"
        self.put(key, value, path)
        return ""

    def where(self, key: str) -> str:
        """Return the place of a keyword."""
        return self._scalars[key][1] if key in self._scalars else self.path

    @property
    def lists_properties(self) -> bool:
        """True if any of the schemas has `properties`."""
        return any(part.properties is not None for part in self._parts)

    def properties(self) -> Iterator[tuple[str, list[Place]]]:
        """Yield the named properties with all schemas that each must fit, in the order of the schemas."""
        listed = (name for part in self._parts for name in part.properties or ())
        for name in dict.fromkeys((*listed, *self.required)):
            yield name, _distinct(place for part in self._parts for place in part.of(name))

    def patterns(self) -> Iterator[tuple[str, list[Place]]]:
        """Yield the patterns of names with all schemas that a matching property must fit."""
        for pattern in dict.fromkeys(pattern for part in self._parts for pattern in part.patterns):
            places = (part.patterns.get(pattern, part.additional) for part in self._parts)
            yield pattern, _distinct(place for place in places if place is not None)

    def additional(self) -> list[Place]:
        """Return the schemas of properties without a name in the schema; empty when nothing is known about them."""
        return _distinct(part.additional for part in self._parts if part.additional is not None)

    def prefix(self) -> list[list[Place]]:
        """Return the schemas of the first elements of a list."""
        longest = max((len(part.prefix) for part in self._parts), default=0)
        return [_distinct(one for part in self._parts for one in part.element(index)) for index in range(longest)]

    def items(self) -> list[Place]:
        """Return the schemas of all further elements of a list."""
        return _distinct(part.items for part in self._parts if part.items is not None)

    def scalars(self) -> dict[str, JSONValue]:
        """Return the keywords of a value without members."""
        if self._types is None and self._values is None and self.lists_properties:
            self._types = ["object"]
        for kind, low, high in _COUNTED:
            if low in self._scalars and high in self._scalars and self._number(low) > self._number(high):
                self._exclude((kind,), f"{low} is over {high}", low)
        self._settle_numbers()
        made: dict[str, JSONValue] = {}
        if self._types is not None:
            made["type"] = self._types[0] if len(self._types) == 1 else list[JSONValue](self._types)
        made |= {key: value for key, (value, _) in self._scalars.items() if key != "enum"}
        if self._values is not None:
            made["enum"] = self._fitting(self._values)
        if self._beside:
            made["allOf"] = list[JSONValue](self._beside)
        return made

    def _fitting(self, values: list[JSONValue]) -> list[JSONValue]:
        if self._types is None:
            return values
        types = frozenset(self._types)
        fitting = [value for value in values if common(frozenset((type_of(value),)), types)]
        if not fitting:
            raise Unsatisfiable(f"none of the values is of the type {' or '.join(self._types)}", self.where("enum"))
        return fitting

    def _number(self, key: str) -> float:
        value = self._scalars[key][0]
        assert isinstance(value, int | float)
        return value

    def _exclude(self, kinds: Sequence[str], reason: str, key: str) -> None:
        """Allow no value of these types."""
        types = sorted(TYPES) if self._types is None else self._types
        self._types = [kind for kind in types if kind not in kinds]
        if not self._types:
            raise Unsatisfiable(reason, self.where(key))

    def _settle_numbers(self) -> None:
        """Limit the digits of numbers, which end a number in time, and refuse bounds that leave none."""
        lows = [key for key in ("minimum", "exclusiveMinimum") if key in self._scalars]
        highs = [key for key in ("maximum", "exclusiveMaximum") if key in self._scalars]
        types = TYPES if self._types is None else frozenset(self._types)
        whole = "number" not in types
        if self._values is not None or not types & {"integer", "number"} or not (lows or highs or whole):
            return
        if lows and highs:
            low, high = (max(map(self._number, lows)), min(map(self._number, highs)))
            strict = any(key in self._scalars and self._number(key) in (low, high) for key in _EXCLUSIVE)
            if low > high or (low == high and strict) or (whole and not self._has_integer()):
                self._exclude(("integer", "number"), f"no number is between {lows[0]} and {highs[0]}", lows[0])
                return
        if not lows:
            self._scalars["minimum"] = (-LARGEST, self.path)
        if not highs:
            self._scalars["maximum"] = (LARGEST, self.path)
        if not whole and "multipleOf" not in self._scalars and self._coarse([*lows, *highs]):
            self._scalars["multipleOf"] = (10.0**-DECIMALS, self.path)

    def _has_integer(self) -> bool:
        """Return True if an integer is between the bounds."""
        low = max(
            math.ceil(self._number("minimum")) if "minimum" in self._scalars else -LARGEST,
            math.floor(self._number("exclusiveMinimum")) + 1 if "exclusiveMinimum" in self._scalars else -LARGEST,
        )
        high = min(
            math.floor(self._number("maximum")) if "maximum" in self._scalars else LARGEST,
            math.ceil(self._number("exclusiveMaximum")) - 1 if "exclusiveMaximum" in self._scalars else LARGEST,
        )
        return low <= high

    def _coarse(self, bounds: Sequence[str]) -> bool:
        """Return True if numbers of few decimals fill the space between the bounds."""
        values = [self._number(key) for key in bounds]
        wide = len(values) < 2 or max(values) - min(values) > 10.0 ** (3 - DECIMALS)
        return (wide or min(values) == max(values)) and all(_decimals(value) < DECIMALS for value in values)


def with_limited_numbers(schema: JSONValue) -> JSONValue:
    """Return a settled schema whose numbers without bounds have the bounds and decimals of those with one bound."""
    if isinstance(schema, list):
        return [with_limited_numbers(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    limited = {key: part if key in _VALUES else with_limited_numbers(part) for key, part in schema.items()}
    kinds = schema.get("type")
    numeric = kinds == "number" or (isinstance(kinds, list) and "number" in kinds)
    if numeric and not schema.keys() & {*_NUMERIC, *_VALUES}:
        limited |= {"minimum": -LARGEST, "maximum": LARGEST, "multipleOf": 10.0**-DECIMALS}
    return limited


_VALUES: Final = ("enum", "const", "default", "examples")
_NUMERIC: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_EXCLUSIVE: Final = ("exclusiveMinimum", "exclusiveMaximum")


def _distinct(places: Iterator[Place] | Sequence[Place]) -> list[Place]:
    """Return the places without repetitions of one part of the client's schema."""
    found: dict[tuple[int, str], Place] = {}
    for place in places:
        found.setdefault((id(place.schema), place.path), place)
    return list(found.values())


def _key(value: JSONValue) -> str:
    """Return a text that is the same for equal JSON values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True)
    return json.dumps(value)


def _decimals(value: float) -> int:
    """Return the number of digits after the decimal point."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
