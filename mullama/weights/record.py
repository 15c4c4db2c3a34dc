"""Writes facts as plain JSON and reads them back, for the lock file and the index; unknown fields are errors."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.weights.facts import WeightFacts


def to_json(facts: WeightFacts) -> dict[str, JSONValue]:
    """Everything; fields at their default are left out, and equal layers in a row are written once."""
    record: dict[str, JSONValue] = _written(facts)
    record["per_layer"] = [{"times": sum(1 for _ in run), **_written(layer)} for layer, run in groupby(facts.per_layer)]
    return record


def for_lock(facts: WeightFacts) -> WeightFacts:
    """Only what plans and memory arithmetic need: no texts of the file, no tensors, no metadata."""
    return replace(facts, template="", templates=(), special=(), metadata={}, tensors=())


def from_json(value: JSONValue, what: str = "the facts") -> WeightFacts:
    """The reverse of `to_json`; raises `Invalid` that names the field."""
    if not isinstance(value, Mapping):
        raise Invalid(f"{what} is not a mapping")
    layers = value.get("per_layer", [])
    if not isinstance(layers, list):
        raise Invalid(f"{what}.per_layer is not a list")
    unrolled = list(_unrolled(layers, f"{what}.per_layer"))
    facts: WeightFacts = _read(WeightFacts, {**value, "per_layer": unrolled}, what)
    return facts


def _unrolled(layers: list[JSONValue], what: str) -> Iterator[JSONValue]:
    for layer in layers:
        times = layer.get("times", 1) if isinstance(layer, Mapping) else 1
        if not isinstance(layer, Mapping) or not isinstance(times, int) or not 1 <= times <= 1024:
            raise Invalid(f"{what} holds {str(layer)[:80]!r}")
        yield from [{key: item for key, item in layer.items() if key != "times"}] * times


def _written(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _written(getattr(value, f.name)) for f in fields(value) if not _usual(f, value)}
    return [_written(item) for item in value] if isinstance(value, tuple) else value


def _usual(field: Any, value: Any) -> bool:
    usual = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(getattr(value, field.name) == usual)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, localns={"JSONValue": object})  # any JSON will do, and need not be looked into


def _read(kind: Any, value: Any, what: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _dataclass(kind, value, what)
    if origin is tuple:
        return _tuple(kind, value, what)
    if origin is Literal:
        return _checked(value in get_args(kind), value, what)
    if origin in (Union, types.UnionType):
        return _checked(any(_is(option, value) for option in get_args(kind)), value, what)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _checked(isinstance(value, Mapping), value, what)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(_is(kind, value), value, what)


def _dataclass(kind: Any, value: Any, what: str) -> Any:
    if not isinstance(value, Mapping):
        raise Invalid(f"{what} is not a mapping")
    hints = _hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise Invalid(f"{what} has the unknown field {unknown[0]!r}", hint="it was written by another version")
    missing = [
        f.name for f in fields(kind) if f.name not in value and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise Invalid(f"{what} lacks the field {missing[0]!r}")
    return kind(**{name: _read(hints[name], item, f"{what}.{name}") for name, item in value.items()})


def _tuple(kind: Any, value: Any, what: str) -> Any:
    if not isinstance(value, list):
        raise Invalid(f"{what} is not a list")
    options = get_args(kind)
    if options[-1] is Ellipsis:
        return tuple(_read(options[0], item, f"{what}[{number}]") for number, item in enumerate(value))
    if len(value) != len(options):
        raise Invalid(f"{what} has {len(value)} elements, not {len(options)}")
    return tuple(_read(option, item, what) for option, item in zip(options, value, strict=True))


def _is(kind: Any, value: Any) -> bool:
    if kind in (None, types.NoneType):
        return value is None
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _checked(right: bool, value: Any, what: str) -> Any:
    if not right:
        raise Invalid(f"{what} is {repr(value)[:80]}, which cannot be")
    return value
