"""The error for a schema that cannot be compiled names its keywords and its place, and repeats no grammar."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLMatcher

from mullama.chat.constraint import build
from mullama.chat.families import family_with
from mullama.chat.types import ResponseFormat, Tool, ToolChoice
from mullama.engines.llamacpp.sampling.culprit import explained
from tests.chat.grammars import _TOKENIZER

NARROW = {"type": "string", "format": "date", "maxLength": 4}


def error_of(text: str) -> str:
    made = LLMatcher(_TOKENIZER, text, log_level=0)
    return str(made.get_error()) if made.is_error() else ""


CASES: list[tuple[Any, str, str]] = [
    (NARROW, "maxLength, format", "#"),
    ({"type": "object", "properties": {"a": NARROW}, "required": ["a"]}, "maxLength, format", "#/properties/a"),
    ({"type": "object", "properties": {"a": {"anyOf": [NARROW, {**NARROW, "maxLength": 3}]}}, "required": ["a"]},
     "maxLength, format", "#/properties/a/anyOf/0"),
    ({"$defs": {"D": NARROW}, "type": "object", "properties": {"a/b": {"$ref": "#/$defs/D"}}, "required": ["a/b"]},
     "maxLength, format", "#/$defs/D"),
    ({"type": "array", "items": NARROW, "minItems": 1}, "maxLength, format", "#/items"),
    ({"enum": ["abc"], "pattern": "^x"}, "pattern, enum", "#"),
    ({"type": "array", "prefixItems": [{"type": "null"}, NARROW], "minItems": 2},
     "maxLength, format", "#/prefixItems/1"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "keywords", "place"), CASES, ids=range(len(CASES)))
def test_a_schema_that_no_value_fits_is_explained(schema: Any, keywords: str, place: str) -> None:
    made = build(family_with("hermes"), format=ResponseFormat(kind="json_schema", schema=schema)).constraint
    assert made is not None
    text = explained(made.grammar, error_of(made.grammar), error_of)
    assert text.endswith(f"(at {place})")
    assert set(keywords.split(", ")) <= set(text.partition("with ")[2].partition(":")[0].split(", "))
    assert "%json" not in text
    assert "\n" not in text


def test_the_schema_of_a_tool_is_explained_too() -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {"a": NARROW}, "required": ["a"]})
    made = build(family_with("hermes"), tools=(tool,), choice=ToolChoice(mode="required")).constraint
    assert made is not None
    assert "(at #/properties/a)" in explained(made.grammar, error_of(made.grammar), error_of)


def test_another_error_is_one_line() -> None:
    assert (
        explained("start: x", "at 1(8): unknown name: x\n   1 | start: x\n            ^", error_of) == "unknown name: x"
    )


def test_a_grammar_that_fits_no_text_is_explained_in_words() -> None:
    made = LLMatcher(_TOKENIZER, 'start: "" start\n', log_level=0)
    made.compute_bitmask()
    assert explained("", str(made.get_error()), error_of) == "no text fits it"
