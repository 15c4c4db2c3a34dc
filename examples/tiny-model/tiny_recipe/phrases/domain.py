"""The type of a kind of tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tiny_recipe.phrases.phrasing import Phrasings


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of tool. A parameter is "slot": "possible names; kind; description"; a slot that ends in "?" is optional.

    Kinds: city, name, word, text, path, symbol, int LOW HIGH, enum A|B, bool WHEN_TRUE|WHEN_FALSE.
    """

    names: tuple[str, ...]
    description: str
    parameters: Mapping[str, str]
    requests: Phrasings
