# ruff: noqa: E501 - tables of cases read better on one line each
"""Grammars accept what they should, refuse the rest, and never let a model write what the reader cannot read."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.answer import fold
from mullama.chat.constraint import Built, build
from mullama.chat.constraint.gbnf import gbnf_to_lark
from mullama.chat.constraint.metaschema import malformed
from mullama.chat.constraint.schema import ENFORCED, UNENFORCED, enforceable, irregular
from mullama.chat.families import family_names, family_with
from mullama.chat.reader import read
from mullama.chat.syntax import ChannelCalls, TaggedCalls
from mullama.chat.template import Thinking
from mullama.chat.types import Constraint, ResponseFormat, Tool, ToolChoice
from mullama.errors import Invalid, MullamaError
from tests.chat.grammars import accepts, matcher, wander
from tests.processor_time import processor_time

THINK = Thinking(open="<think>", close="</think>")
PLAIN = family_with("hermes")


def of(format: ResponseFormat) -> Constraint:
    built = build(PLAIN, format=format)
    assert built.constraint is not None
    return built.constraint


def schema_format(schema: Any) -> ResponseFormat:
    return ResponseFormat(kind="json_schema", schema=schema)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name"],
}

FORMATS: list[tuple[ResponseFormat, list[str], list[str]]] = [
    (ResponseFormat(kind="json"), ["{}", '{"a": [1, null]}', '{"a":1}'], ["[1]", "text", "{", ' {}', '{"a":  1}']),
    (schema_format(PERSON), ['{"name": "Ada"}', '{"name":"Ada","age":3}', '{"name": "Ada", "tags": ["a", "b"]}'],
     ["{}", '{"name": ""}', '{"age": 3, "name": "Ada"}', '{"name": "A", "other": 1}', '{"name": "A", "tags": ["c"]}', '{\n"name": "A"}']),
    (schema_format({"anyOf": [{"const": "x"}, {"type": "null"}]}), ['"x"', "null"], ['"y"', "0"]),
    (schema_format({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
                              {"type": "object", "properties": {"k": {"const": "b"}, "n": {"type": "number"}}, "required": ["k", "n"]}]}),
     ['{"k": "a"}', '{"k": "b", "n": 1}'], ['{"k": "c"}', '{"k": "b"}']),
    (schema_format({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}),
     ['{"next": {"next": {}}}', "{}"], ['{"next": 1}']),
    (schema_format({"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False, "type": "array"}), ['["a", 1]'], ['[1]', '["a", 1, 2]']),
    (schema_format({"type": "string", "nullable": True, "pattern": "^[a-z]+$"}), ['"abc"', "null"], ['"A"', "1"]),
    (schema_format({"type": "integer", "exclusiveMinimum": True, "minimum": 3}), ["4"], ["3", "2"]),
    (schema_format({"type": "object", "properties": {"d": {"type": "string", "format": "date"}}, "required": ["d"]}), ['{"d": "2026-01-31"}'], ['{"d": "x"}']),
    (ResponseFormat(kind="regex", grammar=r"[A-Z]{2}-\d+/x"), ["AB-12/x"], ["ab-12/x", "AB-/x", "AB-1/xx"]),
    (ResponseFormat(kind="gbnf", grammar='root ::= "yes" | "no" # two answers'), ["yes", "no"], ["maybe", ""]),
]  # fmt: skip


@pytest.mark.parametrize(("format", "good", "bad"), FORMATS, ids=range(len(FORMATS)))
def test_a_format_accepts_what_it_should_and_nothing_else(
    format: ResponseFormat, good: list[str], bad: list[str]
) -> None:
    constraint = of(format)
    assert [text for text in good if not accepts(constraint, text)] == []
    assert [text for text in bad if accepts(constraint, text)] == []


def test_properties_come_in_the_schemas_order() -> None:
    constraint = of(
        schema_format(
            {"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}}, "required": ["a", "z"]}
        )
    )
    assert accepts(constraint, '{"z": null, "a": null}')
    assert not accepts(constraint, '{"a": null, "z": null}')


UNFIT = [
    ({"not": {}}, "not"), ({"type": "object", "properties": {"a": {"if": {}}}}, "#/properties/a/if"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"), ({"type": "string", "format": 3}, "string"),
    ({"type": "string", "pattern": "(?=a)"}, "pattern"), ({"type": "string", "pattern": "(a)\\1"}, "pattern"),
    ({"oneOf": [{"type": "string"}, {"type": "string"}]}, "oneOf"),
    ({"$ref": "https://example.org/x.json"}, "same schema"), ({"$ref": "#/$defs/x"}, "no target"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "is circular"),
    ({"type": "strin"}, "type"), ("string", "object"), ({"properties": 3}, "object of schemas"), ({"required": "a"}, "list"),
    ({"type": "object", "properties": {"a": {}}, "minProperties": 1}, "minProperties"), ({"minLength": -1}, "whole number"),
    ({"minimum": "1"}, "number"), ({"anyOf": []}, "at least one"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "words"), UNFIT, ids=range(len(UNFIT)))
def test_a_response_format_that_cannot_be_enforced_is_refused_by_name(schema: Any, words: str) -> None:
    """Compatibility bug 6, one half: never fail open."""
    with pytest.raises(Invalid, match=words) as caught:
        of(schema_format(schema))
    assert caught.value.field == "response_format"


@pytest.mark.parametrize(("schema", "words"), UNFIT, ids=range(len(UNFIT)))
def test_a_tool_whose_schema_cannot_be_enforced_is_degraded_with_a_remark(schema: Any, words: str) -> None:
    """Compatibility bug 6, the other half: one keyword never refuses the request."""
    if isinstance(schema, str):
        return
    tool = Tool(name="f", parameters={"type": "object", "properties": {"a": schema}, "required": ["a"]})
    built = build(PLAIN, tools=(tool,), choice=ToolChoice(mode="required"))
    assert built.constraint is not None
    assert len(built.warnings) >= 1
    assert all("'f'" in warning for warning in built.warnings)
    matcher(built.constraint)


LOOSENED = [
    ({"type": "string", "maxLength": 2000}, {"type": "string", "maxLength": 2000}, ""),
    ({"type": "string", "maxLength": 50_000}, {"type": "string"}, "maxLength 50000 at #/maxLength is not enforced"),
    ({"type": "string", "minLength": 10**12}, {"type": "string", "minLength": 2000},
     "minLength 1000000000000 at #/minLength is enforced as 2000"),
    ({"type": "array", "maxItems": 100_000}, {"type": "array", "maxItems": 100_000}, ""),
    ({"type": "array", "maxItems": 10**18}, {"type": "array"}, f"maxItems {10**18} at #/maxItems is not enforced"),
    ({"pattern": "^[{9000}]{1,9000}\\{9000}$"}, {"pattern": "^[{9000}]{1,}\\{9000}$"},
     r"the pattern '^[{9000}]{1,9000}\\{9000}$' at #/pattern is enforced as '^[{9000}]{1,}\\{9000}$'"),
    ({"pattern": "^a{3000}$"}, {"pattern": "^a{2000,}$"}, "the pattern '^a{3000}$' at #/pattern is enforced as '^a{2000,}$'"),
    ({"pattern": "^https?://.+$", "minLength": 100, "maxLength": 300}, {"pattern": "^https?://.+$", "minLength": 32, "maxLength": 300},
     "minLength 100 beside a pattern at #/minLength is enforced as 32"),
    ({"prefixItems": [{"maxLength": 2000}, {"maxLength": 1999}, {"maxLength": 1998}, {"maxLength": 2000}, {"maxLength": 9}]},
     {"prefixItems": [{"maxLength": 2000}, {"maxLength": 1999}, {}, {"maxLength": 2000}, {"maxLength": 9}]},
     "maxLength 1998 at #/prefixItems/2/maxLength is not enforced"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "enforced", "remark"), LOOSENED, ids=range(len(LOOSENED)))
def test_a_bound_that_a_grammar_cannot_hold_is_loosened_with_a_remark(schema: Any, enforced: Any, remark: str) -> None:
    found, remarks = enforceable(schema, what="x", strict=True, field="f")
    assert (found, remarks) == (enforced, (f"x: {remark}",) if remark else ())
    built = build(PLAIN, format=schema_format(schema))
    assert built.constraint is not None
    assert built.warnings == tuple(f"response_format: {r.removeprefix('x: ')}" for r in remarks)
    matcher(built.constraint)


def test_a_repetition_of_a_regular_expression_that_a_grammar_cannot_hold_is_loosened() -> None:
    built = build(PLAIN, format=ResponseFormat(kind="regex", grammar="[a-z]{1,5000}"))
    assert built.warnings == ("the regular expression is enforced as '[a-z]{1,}'",)
    assert built.constraint is not None
    assert accepts(built.constraint, "abc")


@pytest.mark.parametrize(
    "parameters", [{"const": {"a": 1}}, {"enum": [{"a": 1}, {"b": 2}]}, {"properties": {}, "const": {"a": 1}}]
)
def test_a_tool_may_list_its_arguments_as_values(parameters: Any) -> None:
    built = build(PLAIN, tools=(Tool(name="f", parameters=parameters),), choice=ToolChoice(mode="required"))
    assert (built.constraint is not None, built.warnings) == (True, ())
    assert built.constraint is not None
    assert accepts(built.constraint, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>')
    assert not accepts(built.constraint, '<tool_call>\n{"name": "f", "arguments": {"a": 2}}\n</tool_call>')


MALFORMED = [
    ({"required": [1]}, r"required is malformed: 1 is not of type 'string' \(at #/required/0\)"),
    ({"properties": {"a/b": {"type": "integer", "required": ["x", "x"]}}},
     r"non-unique elements \(at #/properties/a~1b/required\)"),
    ({"$defs": {"n": {"required": [2]}}, "$ref": "#/$defs/n"}, r"at #/\$defs/n/required/0"),
    ({"$schema": "https://json-schema.org/draft/2020-12/schema", "required": [3]}, "at #/required/0"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "words"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_schema_is_refused_with_its_keyword_and_place(schema: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        of(schema_format(schema))
    assert caught.value.field == "response_format"
    with pytest.raises(Invalid, match=f"the tool 'f': .*{words}") as caught:
        build(PLAIN, tools=(Tool(name="f", parameters=schema, strict=True),))
    assert caught.value.field == "tools"
    assert build(PLAIN, tools=(Tool(name="f", parameters=schema),), choice=ToolChoice(mode="required")).constraint


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "description": 3, "title": None, "examples": "x", "default": {}, "x-order": [1]},
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "nullable": True},
        {"type": "object", "properties": {"description": {"type": "string", "description": None}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}], "type": "array"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"a": True}, "const": 1},
        True,
    ],
)
def test_unknown_keywords_annotations_and_older_drafts_are_no_mistakes(schema: Any) -> None:
    assert malformed(schema) == ""


def test_schemas_are_bounded() -> None:
    deep: Any = {"type": "string"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}
    long = {"type": "string", "enum": ["x" * 70_000]}
    for schema in (deep, wide, long):
        with processor_time() as cost, pytest.raises(Invalid):
            of(schema_format(schema))
        assert cost.seconds < 5.0


def test_every_keyword_is_either_enforced_or_refused() -> None:
    assert not ENFORCED & UNENFORCED
    for keyword in ENFORCED - {
        "$ref",
        "properties",
        "patternProperties",
        "type",
        "required",
        "enum",
        "const",
        "pattern",
        "format",
    }:
        assert keyword not in UNENFORCED


@pytest.mark.parametrize(
    "pattern", ["(?=a)", "(?!a)", "(?<=a)", "\\bx", "(a)\\1", "a{70000}", "(", "a" * 2000, "(?>a)", "a++"]
)
def test_patterns_beyond_regular_ones_are_told(pattern: str) -> None:
    assert irregular(pattern) != ""


@pytest.mark.parametrize("pattern", ["^a+$", "[0-9]{1,1000}", "(?:a|b)*", "\\d\\w\\s", "a\\\\b", "[^/]+", "(?i:x)"])
def test_regular_patterns_are_accepted(pattern: str) -> None:
    assert irregular(pattern) == ""


@settings(max_examples=150, deadline=None)
@given(st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", 1, None]}, {"const": True}, True, {"$ref": "#"},
                     {"type": "string", "maxLength": 3}, {"type": "number", "minimum": 1, "maximum": 2}, {"pattern": "a+"}, {"not": {}}, {}]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2).map(lambda p: {"type": "object", "properties": p, "required": list(p)[:1]})
    | inner.map(lambda i: {"type": "array", "items": i, "maxItems": 2})
    | st.lists(inner, min_size=1, max_size=2).map(lambda o: {"anyOf": o}), max_leaves=6,
))  # fmt: skip
def test_any_schema_compiles_or_is_refused(schema: Any) -> None:
    try:
        constraint = of(schema_format(schema))
    except MullamaError:
        return
    from llguidance import LLMatcher

    from tests.chat.grammars import _TOKENIZER

    made = LLMatcher(_TOKENIZER, constraint.grammar, log_level=0)
    assert not made.is_error() or "nsatisfiable" in made.get_error() or "too large" in made.get_error(), (
        made.get_error()
    )


@pytest.mark.parametrize("seed", range(30))
def test_what_a_schema_grammar_lets_be_written_is_valid(seed: int) -> None:
    text = wander(of(schema_format(PERSON)), Random(seed))
    assert text
    jsonschema.Draft202012Validator(PERSON).validate(json.loads(text))


TOOLS = (
    Tool(name="get_weather", parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer"},
                       "where": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
                       "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2}},
        "required": ["city", "days"],
    }),
    Tool(name="stop"),
    Tool(name="add", parameters={"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "boolean"}}}),
)  # fmt: skip
VALIDATORS = {tool.name: jsonschema.Draft202012Validator(tool.parameters or {"type": "object"}) for tool in TOOLS}


def calls_of(name: str, text: str) -> list[tuple[str, Any]]:
    reader = read(family_with(name), lambda: "id", tools=TOOLS)
    choice = fold((*reader.feed(text), *reader.finish())).choices[0]
    assert choice.text == "", (text, choice)
    return [(call.name, call.arguments) for call in choice.tool_calls]


def built(name: str, **options: Any) -> Built:
    return build(family_with(name), tools=TOOLS, **options)


def hint(name: str) -> str:
    calls = family_with(name).calls
    return calls.valued.strip() if isinstance(calls, TaggedCalls) else ""


REQUIRED = ToolChoice(mode="required")


@pytest.mark.parametrize("name", family_names())
@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_required_call_lets_be_written_the_reader_reads_and_the_schema_accepts(name: str, seed: int) -> None:
    """Compatibility bug 2: required always holds, in every family."""
    constraint = built(name, choice=REQUIRED).constraint
    assert constraint is not None
    text = wander(constraint, Random(seed), hint(name))
    assert text
    if isinstance(family_with(name).calls, ChannelCalls):
        text = text.removeprefix("<|start|>assistant")
    calls = calls_of(name, text)
    assert calls
    for tool, arguments in calls:
        VALIDATORS[tool].validate(arguments)


@pytest.mark.parametrize("name", family_names())
def test_a_named_choice_lets_nothing_else_be_called(name: str) -> None:
    constraint = built(name, choice=ToolChoice(mode="required", names=("stop",))).constraint
    assert constraint is not None
    for seed in range(4):
        text = wander(constraint, Random(seed)).removeprefix("<|start|>assistant")
        assert {tool for tool, _ in calls_of(name, text)} == {"stop"}


@pytest.mark.parametrize("name", family_names())
@pytest.mark.parametrize("seed", range(3))
def test_after_its_trigger_an_automatic_call_cannot_go_wrong(name: str, seed: int) -> None:
    constraint = built(name).constraint
    assert constraint is not None
    for trigger in constraint.triggers:
        text = wander(constraint, Random(seed), hint(name))
        prefix = "<|channel|>commentary " if name == "harmony" else ""
        assert text
        assert calls_of(name, prefix + trigger + text)


def test_one_call_at_a_time_when_parallel_calls_are_off() -> None:
    one = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    several, single = (built("hermes", choice=REQUIRED, parallel=p).constraint for p in (True, False))
    assert several is not None
    assert single is not None
    assert accepts(several, f"{one}\n{one}")
    assert accepts(single, one)
    assert not accepts(single, f"{one}\n{one}")
    lazy = built("hermes", parallel=False).constraint
    assert lazy is not None
    assert (lazy.triggers, lazy.repeat) == (("<tool_call>",), False)


def test_where_nothing_announces_a_call_text_that_is_none_stays_free() -> None:
    constraint = built("llama").constraint
    assert constraint is not None
    assert constraint.triggers == ()
    for text in ("Hello", '{"city": "Paris"}', "", "a {b}"):
        assert accepts(constraint, text)
    assert accepts(constraint, '{"name": "stop", "parameters": {}}')
    assert not accepts(constraint, '{"name": "nope", "parameters": {}}')


def test_a_format_beside_tools_leaves_both_ways_open() -> None:
    constraint = built("hermes", format=ResponseFormat(kind="json")).constraint
    assert constraint is not None
    assert accepts(constraint, '{"a": 1}')
    assert accepts(constraint, '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>')
    assert not accepts(constraint, "text")


def test_a_grammar_waits_for_the_end_of_the_reasoning() -> None:
    family = family_with("hermes", THINK)
    for options in ({"format": ResponseFormat(kind="json")}, {"tools": TOOLS, "choice": REQUIRED}, {"tools": TOOLS}):
        made = build(family, thinking=True, **options).constraint  # type: ignore[arg-type]
        assert made is not None
        assert made.after == "</think>"
    made = build(family, thinking=True, format=ResponseFormat(kind="json")).constraint
    assert made is not None
    assert accepts(made, "\n\n{}")


def test_on_the_channels_the_final_message_has_the_format() -> None:
    made = build(family_with("harmony"), format=schema_format(PERSON)).constraint
    assert made is not None
    assert (made.triggers, made.repeat) == (("<|channel|>final",), False)
    assert accepts(made, '<|message|>{"name": "Ada"}')
    assert accepts(made, ' <|constrain|>json<|message|>{"name": "Ada"}')
    assert {text for _, text in made.markers} == {"<|message|>", "<|constrain|>"}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(family_names()), st.text(min_size=1, max_size=12), st.text(max_size=12), st.text(max_size=8))
def test_no_name_key_or_value_of_a_client_can_break_out_of_its_grammar(
    name: str, tool: str, key: str, value: str
) -> None:
    schema = {
        "type": "object",
        "properties": {key: {"type": "string", "enum": [value]}, "b": {"type": "string"}},
        "required": [key],
    }
    made = build(family_with(name), tools=(Tool(name=tool, parameters=schema),), choice=REQUIRED).constraint
    assert made is not None
    matcher(made)


@pytest.mark.parametrize("name", family_names())
def test_a_clients_words_are_never_taken_for_special_tokens(name: str) -> None:
    schema = {
        "type": "object",
        "properties": {"<|eot|>": {"type": "string", "enum": ["<|end|>", "[INST]"]}},
        "required": ["<|eot|>"],
    }
    made = build(family_with(name), tools=(Tool(name="<|im_end|>", parameters=schema),), choice=REQUIRED).constraint
    assert made is not None
    assert not {"<|im_end|>", "<|eot|>", "[INST]"} & {text for _, text in made.markers}


def test_an_empty_literal_is_a_grammar_too() -> None:
    assert accepts(Constraint(grammar=gbnf_to_lark('root ::= "a" "" ("" | "b")')), "ab")


def test_very_large_tools_degrade_together_instead_of_failing() -> None:
    many = tuple(
        Tool(
            name=f"t{i}",
            parameters={
                "type": "object",
                "properties": {"a": {"type": "string", "enum": ["x" * 900 + str(j) for j in range(20)]}},
            },
        )
        for i in range(20)
    )
    made = build(PLAIN, tools=many, choice=REQUIRED)
    assert made.constraint is not None
    assert any("too large together" in warning for warning in made.warnings)
    assert accepts(made.constraint, '<tool_call>\n{"name": "t3", "arguments": {"a": 1}}\n</tool_call>')


GBNF = [
    ('root ::= "a" "b"', ["ab"], ["a"]),
    ("root ::= [a-c]+ | [^a-z]{2,3}", ["abc", "12", "1-2"], ["d", "1", "1234"]),
    ('root ::= item ("," item)*\nitem ::= [0-9]+ # numbers', ["1", "1,23,4"], [",", "1,"]),
    ('root ::= "(" root? ")"', ["()", "((()))"], ["(", ")("]),
    ('root ::= expr\nexpr ::= term ("+" term)*\nterm ::= [0-9] | "(" expr ")"', ["1+2", "(1+(2))"], ["1+", "(1"]),
    ('root ::= "\\n\\t\\"\\\\" "\\x41" "\\u00e9"', ['\n\t"\\Aé'], ["x"]),
    ('root ::= (\n  "a" |\n  "b"\n)\n', ["a", "b"], ["c"]),
    ('root ::= my-rule2{2}\nmy-rule2 ::= "x"', ["xx"], ["x", "xxx"]),
    ('root ::= "a"\n  | "b"', ["a", "b"], ["ab"]),
    ("root ::= [\\]\\-a] .", ["]x", "-é", "ab"], ["b", "]"]),
    ('root ::= object\nobject ::= "{" ws (pair ("," ws pair)*)? "}"\npair ::= string ":" ws value\nvalue ::= object | string | [0-9]+\n'
     'string ::= "\\"" [^"]* "\\""\nws ::= [ \\n]*', ['{"a": {"b": 1}}', "{ }"], ['{"a"}', "{,}"]),
]  # fmt: skip


@pytest.mark.parametrize(("grammar", "good", "bad"), GBNF, ids=range(len(GBNF)))
def test_gbnf_means_what_it_means_to_llama_cpp(grammar: str, good: list[str], bad: list[str]) -> None:
    constraint = Constraint(grammar=gbnf_to_lark(grammar))
    assert [text for text in good if not accepts(constraint, text)] == []
    assert [text for text in bad if accepts(constraint, text)] == []


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ("", "no rule named root"), ('a ::= "x"', "no rule named root"), ("root ::= x", "'x' is not defined"),
        ('root ::= "a"\nroot ::= "b"', "twice"), ('root ::= ("a"', "not closed"), ("root ::= \"a", "not GBNF"),
        ("root ::= []", "empty"), ('root ::= "a"{2001}', "repetition"), ("root = 1", "line 1"), ('root ::= "a" )', "expected"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, "nested"), ("root ::= " + '"a" ' * 30_000, "characters"),
    ],
)  # fmt: skip
def test_mistakes_in_gbnf_are_refused_with_their_line(grammar: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        of(ResponseFormat(kind="gbnf", grammar=grammar))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["root", "::=", "a", '"x"', "[a-z]", "|", "(", ")", "*", "+", "?", "{2}", "\n", ".", "#", '"', "[", "\\"]
        ),
        max_size=16,
    ).map(" ".join)
)
def test_any_gbnf_text_is_a_grammar_or_an_error_of_ours(text: str) -> None:
    with suppress(Invalid):
        gbnf_to_lark("root ::= " + text)


def test_checking_a_schema_leaves_it_to_the_client() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "title": "A", "default": "x"}}}
    before = json.dumps(schema)
    made, remarks = enforceable(schema, what="it", strict=True, field="f")
    assert json.dumps(schema) == before
    assert made == {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    assert remarks == ()
