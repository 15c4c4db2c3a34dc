"""Typed access to the metadata of a header; a key of the wrong type or out of range is a `BadWeights` that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mullama.errors import BadWeights
from mullama.weights.gguf import Array, Value


class Keys:
    """Reads the keys of one model. `{}` in a key stands for the architecture, as in `{}.block_count`."""

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata, self.architecture = metadata, architecture

    def name(self, key: str) -> str:
        return key.format(self.architecture)

    def all(self) -> Mapping[str, Value]:
        return self._metadata

    def has(self, key: str) -> bool:
        return self.name(key) in self._metadata

    def get(self, key: str) -> Value | None:
        return self._metadata.get(self.name(key))

    def text(self, key: str, default: str = "") -> str:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 2**31 - 1) -> int:
        """Return an integer between low and high. Without a default the key is required."""
        value = self.get(key)
        if value is None:
            if default is None:
                raise BadWeights(f"key {self.name(key)} is missing", hint="the file is incomplete")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number")
        self.within(key, value, low, high)
        return value

    def real(self, key: str, default: float) -> float:
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, "a number")
        if not math.isfinite(value):
            raise BadWeights(f"key {self.name(key)} is {value}, not a finite number")
        return float(value)

    def per_layer(self, key: str, layers: int, default: int, *, high: int = 2**31 - 1) -> tuple[int, ...]:
        """Return one number for each layer, from one number or an array of `layers` numbers."""
        value = self.get(key)
        if not isinstance(value, Array):
            return (self.integer(key, default, high=high),) * layers
        numbers = self.integers(key)
        if len(numbers) != layers:
            raise BadWeights(f"key {self.name(key)} has {len(numbers)} elements for {layers} layers")
        for number in numbers:
            self.within(key, number, 0, high)
        return numbers

    def integers(self, key: str) -> tuple[int, ...]:
        value = self.get(key)
        if not isinstance(value, Array) or value.kind in ("string", "float32", "float64"):
            raise self.wrong(key, "an array of whole numbers")
        return tuple(int(number) for number in value.numbers())

    def within(self, key: str, value: int, low: int, high: int) -> None:
        if not low <= value <= high:
            raise BadWeights(f"key {self.name(key)} is {value}, not between {low} and {high}")

    def wrong(self, key: str, wanted: str) -> BadWeights:
        value = self.get(key)
        kind = f"an array of {value.kind}" if isinstance(value, Array) else type(value).__name__
        return BadWeights(f"key {self.name(key)} is {kind}, not {wanted}")
