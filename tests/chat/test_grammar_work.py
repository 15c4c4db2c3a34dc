"""Grammars and patterns that would take much work to compile are refused before they reach the engine."""

from __future__ import annotations

import re

import pytest

from mullama.chat.constraint import build
from mullama.chat.constraint.gbnf import gbnf_to_lark
from mullama.chat.constraint.work import pattern_work
from mullama.chat.prompt import RAW
from mullama.chat.types import ResponseFormat
from mullama.errors import Invalid

CHAIN = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(3000)) + 'r3000 ::= "b"'
DOUBLING = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(40)) + 'r40 ::= "b"'
WRITTEN_OUT = "is longer than 65536 characters when its repetitions are written out"


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('root ::= ((("a"){1000}){1000}){1000}', f"line 1, column 1: the rule 'root' {WRITTEN_OUT}"),
        ('root ::= x\nx ::= ([a-z]{300} "b"){300}', f"line 2, column 1: the rule 'x' {WRITTEN_OUT}"),
        ('root ::= "(" root ")" | ("ab"{300}){300}', f"line 1, column 1: the rule 'root' {WRITTEN_OUT}"),
        ('root ::= x{1000}\nx ::= y{100}\ny ::= "z"', f"line 1, column 1: the rule 'root' {WRITTEN_OUT}"),
        (DOUBLING, f"line 25, column 1: the rule 'r23' {WRITTEN_OUT}"),
    ],
)
def test_a_grammar_of_too_much_work_is_refused_with_its_line(grammar: str, words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)):
        gbnf_to_lark(grammar)


@pytest.mark.parametrize("grammar", ['root ::= [a-z]{1000} ("x" | "y"){0,1000}', 'root ::= (("a"){200}){300}', CHAIN])
def test_a_grammar_of_bounded_work_is_accepted(grammar: str) -> None:
    assert gbnf_to_lark(grammar).startswith("start: ")


@pytest.mark.parametrize(
    ("pattern", "work"),
    [
        ("", 0),
        ("abc", 3),
        ("a{1000}", 1000),
        ("^(a{1000}){1000}$", 1_000_002),
        ("(?:ab|c){10,20}", 60),
        ("[a{9}]{5}", 5),
        (r"\{9\}", 3),
        (r"\p{Lu}{30}", 30),
        ("(?P<name>a{2,}){3}", 6),
        ("((a+)+)+", 1),
        ("a{2}{3}{4}", 24),
        ("(a{0}){5}", 5),
        ("x{,4}", 4),
        ("((((", 0),
    ],
)
def test_the_work_of_a_pattern_is_its_size_without_repetitions(pattern: str, work: int) -> None:
    assert pattern_work(pattern) == work


@pytest.mark.parametrize(
    "format",
    [
        ResponseFormat(kind="json_schema", schema={"type": "string", "pattern": "^(a{1000}){1000}$"}),
        ResponseFormat(kind="json_schema", schema={"type": "object", "patternProperties": {"^(a{300}){300}$": {}}}),
        ResponseFormat(kind="regex", grammar="((a|b){500}){500}"),
    ],
)
def test_a_pattern_of_too_much_work_is_refused(format: ResponseFormat) -> None:
    with pytest.raises(Invalid, match="longer than 65536 characters when its repetitions are written out"):
        build(RAW, format=format)
