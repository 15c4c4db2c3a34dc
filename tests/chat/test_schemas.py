# ruff: noqa: E501 - tables of cases read better on one line each
"""Schemas as generators write them are enforced as a whole: each accepts its instances and refuses all others."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from mullama.chat.answer import fold
from mullama.chat.constraint import build
from mullama.chat.families import family_with
from mullama.chat.reader import read
from mullama.chat.types import Constraint, ResponseFormat, Tool, ToolChoice
from mullama.errors import Invalid
from tests.chat.grammars import _TOKENIZER, accepts, matcher, wander
from tests.processor_time import processor_time

PLAIN = family_with("hermes")
S, INT, N, B, NULL = ({"type": kind} for kind in ("string", "integer", "number", "boolean", "null"))


def of(schema: Any) -> Constraint:
    made = build(PLAIN, format=ResponseFormat(kind="json_schema", schema=schema)).constraint
    assert made is not None
    return made


def obj(required: str = "", /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required.split()} if required else {})}


BASE = obj("id", id=INT)
KIND = {"properties": {"kind": {"const": "a"}}, "required": ["kind"]}
CAT, DOG = (
    obj("pet meow", pet={"const": "cat", "type": "string"}, meow=B),
    obj("pet bark", pet={"enum": ["dog"]}, bark=INT),
)

# What writes it, the schema, instances that fit, instances that do not.
WRITTEN: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("properties beside anyOf", {"type": "object", "anyOf": [KIND], "properties": {"kind": S, "id": INT}, "required": ["id", "kind"]},
     [{"kind": "a", "id": 1}], [{"kind": "b", "id": 1}, {"kind": "a"}]),
    ("anyOf beside properties", {"required": ["id", "kind"], "properties": {"kind": S, "id": INT}, "anyOf": [KIND], "type": "object"},
     [{"kind": "a", "id": 1}], [{"kind": "b", "id": 1}, {"kind": "a"}]),
    ("properties after two anyOf branches", {"anyOf": [KIND, {"properties": {"n": N}, "required": ["n"]}], "type": "object", "properties": {"id": INT}, "required": ["id"]},
     [{"id": 1, "kind": "a"}, {"id": 1, "n": 2}], [{"id": 1}, {"kind": "a"}, {"id": 1, "kind": "b"}]),
    ("OpenAPI inheritance", {"type": "object", "$defs": {"Base": BASE}, "properties": {"d": {"allOf": [{"$ref": "#/$defs/Base"}, obj("tag", tag={"const": "t"})]}}, "required": ["d"]},
     [{"d": {"id": 1, "tag": "t"}}], [{"d": {"id": 1}}, {"d": {"tag": "t"}}, {"d": {"id": "x", "tag": "t"}}]),
    ("OpenAPI inheritance, properties beside allOf", {"components": {"Base": BASE}, "allOf": [{"$ref": "#/components/Base"}], "type": "object", "properties": {"tag": S}, "required": ["tag"]},
     [{"id": 1, "tag": "t"}], [{"tag": "t"}]),
    ("inheritance of two levels", {"definitions": {"A": BASE, "B": {"allOf": [{"$ref": "#/definitions/A"}, obj("b", b=S)]}}, "allOf": [{"$ref": "#/definitions/B"}, obj("c", c=B)]},
     [{"id": 1, "b": "x", "c": True}], [{"id": 1, "c": True}, {"b": "x", "c": True}]),
    ("a diamond", {"definitions": {"A": BASE, "B": {"allOf": [{"$ref": "#/definitions/A"}, obj(b=S)]}, "C": {"allOf": [{"$ref": "#/definitions/A"}, obj(c=S)]}}, "allOf": [{"$ref": "#/definitions/B"}, {"$ref": "#/definitions/C"}]},
     [{"id": 1, "b": "x", "c": "y"}, {"id": 1}], [{"b": "x"}]),
    ("$ref with siblings", {"$defs": {"Base": BASE}, "$ref": "#/$defs/Base", "properties": {"tag": S}, "required": ["tag"]},
     [{"id": 1, "tag": "t"}], [{"id": 1}, {"tag": "t"}]),
    ("a child that narrows a property", {"$defs": {"Base": obj("kind", kind=S, n=N)}, "allOf": [{"$ref": "#/$defs/Base"}, obj("n", kind={"enum": ["x", "y"]}, n={"type": "integer", "minimum": 3})]},
     [{"kind": "x", "n": 3}], [{"kind": "z", "n": 3}, {"kind": "x", "n": 2}, {"kind": "x"}]),
    ("pydantic: a reference in allOf", {"$defs": {"E": {"enum": ["a", "b"], "type": "string"}}, **obj("e", e={"allOf": [{"$ref": "#/$defs/E"}], "default": "a", "title": "E"})},
     [{"e": "a"}], [{"e": "c"}, {}]),
    ("pydantic: Optional", obj("a b", a={"anyOf": [S, NULL], "default": None}, b={"anyOf": [INT, NULL], "title": "B"}),
     [{"a": None, "b": 1}, {"a": "x", "b": None}], [{"a": 1, "b": 1}, {"a": "x"}]),
    ("pydantic: discriminated union", {"$defs": {"Cat": CAT, "Dog": DOG}, **obj("p", p={"discriminator": {"mapping": {"cat": "#/$defs/Cat"}, "propertyName": "pet"}, "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]})},
     [{"p": {"pet": "cat", "meow": True}}, {"p": {"pet": "dog", "bark": 1}}], [{"p": {"pet": "dog", "meow": True}}, {"p": {"pet": "cow"}}]),
    ("discriminated union of children", {"definitions": {"Base": obj("pet", pet=S), "Cat": {"allOf": [{"$ref": "#/definitions/Base"}, CAT]}, "Dog": {"allOf": [{"$ref": "#/definitions/Base"}, DOG]}}, "oneOf": [{"$ref": "#/definitions/Cat"}, {"$ref": "#/definitions/Dog"}]},
     [{"pet": "cat", "meow": True}, {"pet": "dog", "bark": 1}], [{"pet": "dog", "meow": True}]),
    ("oneOf told apart by required properties", {"oneOf": [obj("a", a=INT), obj("b", b=INT)]}, [{"a": 1}, {"b": 1}], [{}, {"a": 1, "b": 1}]),
    ("oneOf beside properties", {"type": "object", "properties": {"id": INT}, "required": ["id"], "oneOf": [CAT, DOG]},
     [{"id": 1, "pet": "cat", "meow": True}], [{"id": 1}, {"pet": "cat", "meow": True}]),
    ("pydantic: a recursive model", {"$defs": {"Node": obj("v", v=INT, left={"anyOf": [{"$ref": "#/$defs/Node"}, NULL], "default": None})}, "$ref": "#/$defs/Node"},
     [{"v": 1}, {"v": 1, "left": {"v": 2, "left": None}}], [{"v": 1, "left": {}}, {}]),
    ("recursion through allOf", {"$defs": {"Base": obj("id", id=INT, next={"$ref": "#/$defs/Child"}), "Child": {"allOf": [{"$ref": "#/$defs/Base"}, obj("tag", tag=S)]}}, "$ref": "#/$defs/Child"},
     [{"id": 1, "tag": "x"}, {"id": 1, "next": {"id": 2, "tag": "y"}, "tag": "x"}], [{"id": 1, "next": {"id": 2}, "tag": "x"}]),
    ("pydantic: a generic model", {"definitions": {"A<B>": obj("x", x=INT)}, **obj("a", a={"$ref": "#/definitions/A%3CB%3E"})}, [{"a": {"x": 1}}], [{"a": {"x": "1"}}]),
    ("a generic name that is not encoded", {"definitions": {"A<B>": obj("x", x=INT)}, **obj("a", a={"$ref": "#/definitions/A<B>"})}, [{"a": {"x": 1}}], [{"a": {}}]),
    ("names with a slash, a tilde, a space and an accent", {"$defs": {"a/b": INT, "a~b": S, "a b": B, "é": NULL, "50%": N}, **obj("p q r s t", p={"$ref": "#/$defs/a~1b"}, q={"$ref": "#/$defs/a~0b"}, r={"$ref": "#/$defs/a%20b"}, s={"$ref": "#/$defs/%C3%A9"}, t={"$ref": "#/$defs/50%"})},
     [{"p": 1, "q": "x", "r": True, "s": None, "t": 0.5}], [{"p": "1", "q": "x", "r": True, "s": None, "t": 0.5}]),
    ("a reference to a property", obj("a b", a={"type": "array", "items": INT}, b={"$ref": "#/properties/a/items"}), [{"a": [1], "b": 2}], [{"a": [], "b": "x"}]),
    ("$anchor", {"$defs": {"x": {"$anchor": "here", "type": "integer"}}, **obj("a", a={"$ref": "#here"})}, [{"a": 1}], [{"a": "x"}]),
    ("TypeBox: $id of a recursive type", {"$id": "Node", **obj("nodes", nodes={"type": "array", "items": {"$ref": "Node"}})}, [{"nodes": []}, {"nodes": [{"nodes": []}]}], [{"nodes": [1]}]),
    ("an absolute $id", {"$id": "https://example.org/root.json", "$defs": {"x": {"$id": "part.json", "type": "integer"}}, **obj("a b", a={"$ref": "https://example.org/part.json"}, b={"$ref": "part.json"})}, [{"a": 1, "b": 2}], [{"a": 1, "b": "x"}]),
    ("TypeBox: an intersection", {"type": "object", "allOf": [obj("a", a=S), obj("b", b=N)], "unevaluatedProperties": False}, [{"a": "x", "b": 1}], [{"a": "x"}, {"a": "x", "b": 1, "c": 1}]),
    ("TypeBox: a union of literals", {"anyOf": [{"const": "a", "type": "string"}, {"const": "b", "type": "string"}]}, ["a", "b"], ["c", 1]),
    ("zod: integers and nullable", {"$schema": "https://json-schema.org/draft/2020-12/schema", **obj("n s", n={"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}, s={"anyOf": [S, NULL]}), "additionalProperties": False},
     [{"n": 5, "s": None}], [{"n": 5.5, "s": None}]),
    ("zod: a tuple", {"type": "array", "prefixItems": [S, INT], "items": False, "minItems": 2}, [["a", 1]], [["a"], ["a", 1, 2], [1, "a"]]),
    ("zod: a map", {"type": "object", "additionalProperties": N}, [{"a": 1, "b": 2.5}, {}], [{"a": "x"}]),
    ("OpenAPI 3.0: nullable", obj("a b c", a={"type": "string", "nullable": True}, b={"type": "string", "enum": ["x"], "nullable": True}, c={"nullable": True, "allOf": [BASE]}),
     [{"a": "x", "b": "x", "c": {"id": 1}}], [{"a": 1, "b": "x", "c": {"id": 1}}, {"a": "x", "b": "y", "c": {"id": 1}}]),
    ("formats of OpenAPI and schemars", obj("a b c d", a={"type": "integer", "format": "uint32", "minimum": 0}, b={"type": "number", "format": "double"}, c={"type": "string", "format": "binary"}, d={"type": "integer", "format": "int64"}),
     [{"a": 1, "b": 0.5, "c": "x", "d": -3}], [{"a": -1, "b": 1, "c": "x", "d": 1}]),
    ("schemars: an enum with data", {"oneOf": [{"type": "string", "enum": ["Unit"]}, {"type": "object", "required": ["Move"], "properties": {"Move": obj("x", x=INT)}, "additionalProperties": False}]},
     ["Unit", {"Move": {"x": 1}}], ["Move", {"Unit": 1}]),
    ("draft 4 bounds", {"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True}, [0.5], [0, 1, -1]),
    ("bounds in two places", {"type": "integer", "minimum": 1, "allOf": [{"minimum": 3}, {"maximum": 5}]}, [3, 5], [1, 2, 6]),
    ("constraints of two places", {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "z$"}], "minLength": 2}, ["az", "abz"], ["a", "bz", "ab"]),
    ("types of two places", {"type": ["string", "integer"], "allOf": [{"type": ["number", "null"]}]}, [1], ["a", 1.5, None]),
    ("values of two places", {"enum": ["a", "b", 1], "allOf": [{"type": "string"}, {"enum": ["b", 1, "c"]}]}, ["b"], ["a", 1, "c"]),
    ("a definition without properties", {"$defs": {"Any": {"type": "object"}}, **obj("a", a={"$ref": "#/$defs/Any"})}, [{"a": {"x": [1]}}], [{"a": 1}]),
    ("a definition that nothing refers to", {"$defs": {"Odd": {"type": "object", "if": {}}}, **obj("a", a=INT)}, [{"a": 1}], [{}]),
    ("an optional property that no value fits", obj("b", a={"type": "string", "enum": [1]}, b=INT), [{"b": 1}], [{"a": "x", "b": 1}]),
    ("a branch that no value fits", {"type": "string", "anyOf": [{"minLength": 2}, {"type": "integer"}]}, ["ab"], ["a", 1]),
    ("one of several required sets", {"type": "object", "properties": {"a": INT, "b": INT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}], [{}]),
    ("lists of two places", {"type": "array", "items": N, "allOf": [{"items": {"minimum": 2}}, {"prefixItems": [{"type": "integer"}]}]}, [[2, 2.5], []], [[1], [2.5]]),
    ("open objects", {"type": "object", "properties": {"a": INT}, "required": ["a"], "additionalProperties": True}, [{"a": 1, "z": "x"}], [{"z": "x"}]),
    ("maps beside properties", {"type": "object", "properties": {"a": INT}, "additionalProperties": S, "allOf": [{"properties": {"b": {"minLength": 1}}, "required": ["b"]}]}, [{"a": 1, "b": "x"}, {"b": "x", "c": "y"}], [{"b": ""}, {"b": 1}, {"b": "x", "c": 1}]),
    ("an empty model", obj(), [{}], []),
    ("a required name that is not described", {"type": "object", "properties": {"a": INT}, "required": ["b"]}, [{"a": 1, "b": "x"}, {"b": None}], [{"a": 1}]),
    ("FastAPI: a list of a union", {"$defs": {"A": obj("k", k={"const": "a"}), "B": obj("k", k={"const": "b"})}, "type": "array", "items": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}, "minItems": 1},
     [[{"k": "a"}, {"k": "b"}]], [[], [{"k": "c"}]]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), [case[1:] for case in WRITTEN], ids=[case[0] for case in WRITTEN])
def test_a_schema_accepts_its_instances_and_no_others(schema: Any, good: list[Any], bad: list[Any]) -> None:
    constraint = of(schema)
    for instance in good:
        jsonschema.validate(instance, schema)
    assert [one for one in good if not accepts(constraint, json.dumps(one, ensure_ascii=False))] == []
    assert [one for one in bad if accepts(constraint, json.dumps(one, ensure_ascii=False))] == []


# Schemas that allow nothing, or that cannot be enforced: the message names the keyword and the place.
REFUSED = [
    (obj("a", a={"type": "integer", "minimum": 5, "maximum": 3}), "no number is between minimum and maximum", "#/properties/a/minimum"),
    ({"allOf": [S, INT]}, "the type cannot be string as well", "#/allOf/1/type"),
    (obj("a", a={"type": "string", "enum": [1]}), "none of the values is of the type string", "#/properties/a/enum"),
    ({"enum": ["a"], "allOf": [{"const": "b"}]}, "no value is left", "#/enum"),
    ({"type": "object", "properties": {"a": INT}, "required": ["b"], "additionalProperties": False}, "'b' is required", "#/required"),
    ({"allOf": [obj("a", a=INT), {**obj("b", b=INT), "additionalProperties": False}]}, "'a' is required", "#/allOf/0/required"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength is over maxLength", "#/minLength"),
    ({"anyOf": [{"type": "string", "enum": []}, False]}, "no value is left", "#/anyOf/0/enum"),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "no number is between", "#/exclusiveMinimum"),
    ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, S]}}, "$ref": "#/$defs/a"}, "is circular", "#/$defs/a/allOf/0/$ref"),
    ({"type": "number", "multipleOf": 0}, "over 0", "#/multipleOf"),
    ({"type": "number", "minimum": 1e30}, "numbers are at most", "#/minimum"),
    ({"oneOf": [INT, N]}, "oneOf with branches that can match together", "#/oneOf"),
    ({"properties": {}, "oneOf": [INT, INT]}, "oneOf with branches that can match together", "#/oneOf"),
    ({"oneOf": [S, {"properties": {"a": INT}}]}, "oneOf with branches that can match together", "#/oneOf"),
    ({"oneOf": [{"type": ["object", "string"], "properties": {"a": INT}}, {"required": ["b"]}]}, "oneOf with branches that can match together", "#/oneOf"),
    ({"oneOf": [obj(a=INT), obj(b=INT)]}, "oneOf with branches that can match together", "#/oneOf"),
    (obj("a/b", **{"a/b": {"not": {}}}), "not cannot be enforced", "#/properties/a~1b/not"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "words", "place"), REFUSED, ids=range(len(REFUSED)))
def test_a_schema_that_cannot_be_met_is_refused_with_its_place(schema: Any, words: str, place: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        of(schema)
    assert f"(at {place})" in caught.value.message


BOUNDS = [
    {"exclusiveMinimum": 0}, {"exclusiveMaximum": 1}, {"exclusiveMinimum": 0, "exclusiveMaximum": 2}, {"minimum": 0.25},
    {"minimum": -1, "maximum": 1}, {"exclusiveMinimum": -273.15, "maximum": 1e6}, {"minimum": 0, "exclusiveMinimum": True},
]  # fmt: skip


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("kind", ["number", "integer", ["number", "null"]])
def test_a_number_with_bounds_ends(bounds: dict[str, Any], kind: Any) -> None:
    """A model that repeats one digit comes to the end of the number within 32 characters."""
    for schema in ({"type": kind, **bounds}, {"anyOf": [{"type": kind, **bounds}, B]}, {"type": "array", "items": {"type": kind, **bounds}, "minItems": 1}):  # fmt: skip
        constraint = of(schema)
        for digit in b"0123456789":
            made = matcher(constraint)
            written = 0
            while True:
                mask = made.compute_bitmask()
                digits = [token for token in b"-[0123456789." if mask[token >> 3] >> (token & 7) & 1]
                if not digits:
                    break
                assert made.consume_token(digit if digit in digits else ord(".") if ord(".") in digits else digits[0])
                written += 1
                assert written < 32, (schema, digit)


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_sane_numbers_are_accepted(kind: str) -> None:
    for value in (0, 7, -12, 9007199254740991, 1234567890123456789):
        assert accepts(of({"type": kind}), json.dumps(value))
    for value in (0.123456789, 1e-7, 6.02e23) if kind == "number" else ():
        assert accepts(of({"type": kind}), json.dumps(value))
    for value in (0.000000001, 3.75, 12345.678901234) if kind == "number" else ():
        assert accepts(of({"type": kind, "exclusiveMinimum": 0}), f"{value:.9f}")


def test_patterns_of_names_take_no_exponential_time() -> None:
    pattern = {"type": "object", "patternProperties": {"^(a+)+$": S, "^x": INT}, "additionalProperties": False}
    with processor_time() as cost:
        made = of({**pattern, "allOf": [{"properties": {"a" * 60 + "!": S, "x1": {"minimum": 3}}, "required": ["x1"]}]})
    assert cost.seconds < 5.0
    assert accepts(made, '{"x1": 3}')
    assert not accepts(made, '{"x1": 2}')


def test_an_unknown_format_is_an_annotation() -> None:
    for format in ("uint32", "iban", "uri-reference", "x" * 100):
        assert accepts(of({"type": "string", "format": format}), '"anything"')
    assert not accepts(of({"type": "string", "format": "date"}), '"anything"')


KEYWORDS = [
    "$ref", "$anchor", "$id", "$defs", "additionalProperties", "allOf", "anyOf", "const", "definitions", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minProperties", "multipleOf", "not", "nullable",
    "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type", "unevaluatedProperties", "uniqueItems",
]  # fmt: skip
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.sampled_from(["#", "#/", "#/$defs/a", "object", "string", "(", "a", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a", "b"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), ODD, min_size=1, max_size=4), st.sampled_from(["hermes", "qwen-coder", "gemma", "lfm", "deepseek-v4"]))  # fmt: skip
def test_any_value_of_any_keyword_gives_a_grammar_or_a_clear_error(schema: dict[str, Any], name: str) -> None:
    for format in (schema, obj("a", a=schema)):
        with suppress(Invalid):
            of(format)
    made = build(family_with(name), tools=(Tool(name="f", parameters=schema),), choice=ToolChoice(mode="required"))
    assert made.constraint is not None


LEAVES = [
    S, INT, NULL, True, {"enum": ["a", 1]}, {"type": "number", "minimum": 1}, {"const": {"a": 1}}, {"type": "object"}, {"pattern": "a+"},
    {"type": "array", "minItems": 2}, {"minLength": 2}, {"multipleOf": 3}, {"format": "date"},
]  # fmt: skip
COMBINED = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.fixed_dictionaries({}, optional={
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3), "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "anyOf": st.lists(inner, min_size=1, max_size=2), "allOf": st.lists(inner, min_size=1, max_size=2), "items": inner,
        "oneOf": st.lists(inner, min_size=1, max_size=2), "additionalProperties": inner, "prefixItems": st.lists(inner, max_size=2),
        "type": st.sampled_from(["object", "array", "number", ["string", "null"]]), "maxLength": st.just(4),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "^b"]), inner, max_size=1),
    }),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(COMBINED, st.randoms(use_true_random=False))
def test_whatever_a_combined_schema_lets_be_written_is_valid(schema: Any, random: Any) -> None:
    try:
        constraint = of(schema)
    except Invalid:
        return
    if not LLMatcher(_TOKENIZER, constraint.grammar, log_level=0).is_error():
        text = wander(constraint, random, limit=300)
        if text:
            jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("name", ["qwen-coder", "gemma", "lfm", "deepseek-v4", "hermes", "glm", "harmony"])
@pytest.mark.parametrize("seed", range(3))
def test_the_arguments_of_a_call_follow_references_in_every_notation(name: str, seed: int) -> None:
    parameters = {
        "$defs": {"Text": S, "Kind": {"enum": ["edit", "create"]}, "Point": obj("x", x={"$ref": "#/$defs/Count"}), "Count": {"type": "integer", "minimum": 0}},
        **obj("code kind at", code={"$ref": "#/$defs/Text"}, kind={"$ref": "#/$defs/Kind"}, at={"$ref": "#/$defs/Point"}, why={"anyOf": [{"$ref": "#/$defs/Text"}, NULL]}),
    }  # fmt: skip
    tool = Tool(name="f", parameters=parameters)
    family = family_with(name)
    made = build(family, tools=(tool,), choice=ToolChoice(mode="required"))
    assert made.warnings == ()
    assert made.constraint is not None
    text = wander(made.constraint, Random(seed), getattr(family.calls, "valued", "").strip())
    reader = read(family, lambda: "id", tools=(tool,))
    answer = fold((*reader.feed(text.removeprefix("<|start|>assistant")), *reader.finish())).choices[0]
    assert answer.tool_calls
    for call in answer.tool_calls:
        jsonschema.validate(call.arguments, parameters)
