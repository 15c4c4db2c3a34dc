"""Facts in a lock file or an index come back as they were, and anything else is refused with the field."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.weights import record
from mullama.weights.inspect import inspect
from mullama.weights.memory import ContextShape, WeightsPlacement, need
from tests import ggufs

TINY = inspect([ggufs.reader((resources.files("mullama.sources") / "builtin_models" / "tiny.gguf").read_bytes())])


def through(facts: Any) -> Any:
    return record.from_json(json.loads(json.dumps(record.to_json(facts))))


def test_facts_survive_json_with_tensors_and_metadata() -> None:
    back = through(TINY)
    assert back == TINY
    assert back.tensors == TINY.tensors
    assert back.metadata == TINY.metadata


def test_a_lock_keeps_what_memory_arithmetic_needs_in_a_kilobyte() -> None:
    brief = record.for_lock(TINY)
    assert len(json.dumps(record.to_json(brief))) < 1024
    back = through(brief)
    context = (ContextShape(size=1024, parallel=2),)
    assert need(back, WeightsPlacement(), context) == need(TINY, WeightsPlacement(), context)
    assert back.capabilities == TINY.capabilities
    assert (back.template, back.tensors, back.special) == ("", (), ())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("layers", "6", "layers: Expected `int`, got `str`"),
        ("layers", True, "layers: Expected `int`, got `bool`"),
        ("role", "boss", r"role: Invalid enum value 'boss'"),
        ("heads", [1, "x"], r"heads\[1\]: Expected `int`, got `str`"),
        ("heads", 4, "heads: Expected `array`, got `int`"),
        ("per_layer", [{"times": 10**9, "weights": 1}], "per_layer holds"),
        ("per_layer", [{"key": 1}], r"per_layer\[0\]: Object missing required field `weights`"),
        ("rope", [], "rope: Expected `object`, got `array`"),
        ("templates", [["a"]], r"templates\[0\]: Expected `array` of length 2, got 1"),
        ("nonsense", 1, "unknown field 'nonsense'"),
        ("rope", {"nonsense": 1}, "unknown field 'nonsense'"),
        ("per_layer", [{"weights": 1}, {"weights": 1, "nonsense": 1}], "unknown field 'nonsense'"),
        ("add_bos", 3, r"add_bos: Expected `bool \| null`, got `int`"),
    ],
)
def test_a_wrong_record_is_refused_with_the_field(field: str, value: Any, words: str) -> None:
    tree = {**record.to_json(record.for_lock(TINY)), field: value}
    with pytest.raises(Invalid, match=words):
        record.from_json(tree)


def test_a_record_that_lacks_a_field_is_refused() -> None:
    with pytest.raises(Invalid, match="the facts: Object missing required field `architecture`"):
        record.from_json({"layers": 1})
    with pytest.raises(Invalid, match="not a mapping"):
        record.from_json([])
