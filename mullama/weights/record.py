"""Facts as JSON, for the lock file and the index. Equal layers in a row are written once, with their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from mullama.codec import from_tree
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct, defaults, field_names, replace
from mullama.weights.facts import WeightFacts

_MAX_LAYERS = 1024


def to_json(facts: WeightFacts) -> dict[str, JSONValue]:
    """Return facts as JSON without the fields that have their default."""
    record: dict[str, JSONValue] = _written(facts)
    record["per_layer"] = [{"times": sum(1 for _ in run), **_written(layer)} for layer, run in groupby(facts.per_layer)]
    return record


def for_lock(facts: WeightFacts) -> WeightFacts:
    """Return the facts that plans and memory arithmetic need: without texts of the file, tensors and metadata."""
    return replace(facts, template="", templates=(), special=(), control=None, metadata={}, tensors=())


def from_json(value: JSONValue, name: str = "the facts") -> WeightFacts:
    """Return the facts that `to_json` wrote; raise `Invalid` that names the field for anything else."""
    if not isinstance(value, Mapping):
        raise Invalid(f"{name} is not a mapping")
    layers = value.get("per_layer", [])
    if not isinstance(layers, list):
        raise Invalid(f"{name}.per_layer is not a list")
    unrolled = list(_unrolled(layers, f"{name}.per_layer"))
    return from_tree(WeightFacts, {**value, "per_layer": unrolled}, name, only_known=True)


def _unrolled(layers: list[JSONValue], name: str) -> Iterator[JSONValue]:
    for layer in layers:
        times = layer.get("times", 1) if isinstance(layer, Mapping) else 1
        if not isinstance(layer, Mapping) or not isinstance(times, int) or not 1 <= times <= _MAX_LAYERS:
            raise Invalid(f"{name} holds {str(layer)[:80]!r}")
        yield from [{key: item for key, item in layer.items() if key != "times"}] * times


def _written(value: Any) -> Any:
    if isinstance(value, Struct):
        usual, values = defaults(type(value)), {name: getattr(value, name) for name in field_names(value)}
        return {name: _written(item) for name, item in values.items() if name not in usual or item != usual[name]}
    return [_written(item) for item in value] if isinstance(value, tuple) else value
