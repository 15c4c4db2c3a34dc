"""`mullama grammar`: the enforced grammar of a schema, and mistakes with their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.cli.inference.json_places import offset_of, place_at
from tests.cli.conftest import Ran

Run = Callable[..., Ran]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 0, 2]))
def test_a_pointer_leads_to_the_text_of_its_value(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    for pointer, part in _parts(value, "#"):
        found, _ = json.JSONDecoder().raw_decode(text, offset_of(text, pointer))
        assert found == part


def _parts(value: object, pointer: str) -> list[tuple[str, object]]:
    found = [(pointer, value)]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        found += _parts(inner, f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}")
    return found


def test_places_count_from_one() -> None:
    assert place_at('{\n "a": 1}', offset_of('{\n "a": 1}', "#/a")) == (2, 7)
    assert place_at("[1]", offset_of("[1]", "#/7/x")) == (1, 1)


SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


def test_the_grammar_is_the_one_that_answers_get(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(SCHEMA)
    ran = run("grammar", "from-schema", "s.json")
    assert ran.code == 0
    assert ran.out.startswith("start: value_0\nvalue_0: %json {")
    assert '"additionalProperties": false' in ran.out  # added by the rewriting of the engine
    assert run("grammar", "validate", "-", "--kind", "lark", stdin=ran.out).code == 0


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("s.json", SCHEMA, "JSON Schema"),
        ("s", SCHEMA, "JSON Schema"),
        ("g.gbnf", 'root ::= "a" | "b"\n', "GBNF grammar"),
        ("g", "root ::= [0-9]{1,3} # digits\n", "GBNF grammar"),
        ("g.lark", 'start: "a" | B\nB: /b+/\n', "Lark grammar"),
    ],
)
def test_valid_files_are_recognized(run: Run, tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).write_text(text)
    ran = run("grammar", "validate", name)
    assert (ran.code, ran.out) == (0, f"{name} is a valid {kind}\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"a":\n 1,}', "a.json:2:4: it is no JSON"),
        ("a.json", '{"type":\n "strin"}', "a.json:2:2: 'strin' is not a type"),
        ("a.json", '{"items": {\n"not": {}}}', "a.json:2:"),
        ("a.json", '{"a": 1, "a": 2}', "a.json: the schema has the key 'a' twice"),
        ("a.json", '{"minimum": ' + "1" * 5000 + "}", "a.json: it is no JSON: Exceeds the limit"),
        ("a.json", "[" * 100_000, "a.json:1:1: it is nested too deeply"),
        ("a.json", "3", "a.json:1:1: "),
        ("a.json", '{"type": "string",\n "minLength": 5, "maxLength": 3}', "no value fits"),
        ("a.json", '{"type": "string",\n "pattern": "^ab$", "minLength": 9}', "a.json:"),
        ("a.gbnf", 'root ::= a\na ::= "x" @', "a.gbnf:2:11: '@' is not GBNF"),
        ("a.gbnf", 'root ::= "x"\n  | bb', "a.gbnf:2:5: the rule 'bb' is not defined"),
        ("a.gbnf", 'root ::= ("x"', "a.gbnf:1:10: a group is not closed"),
        ("a.gbnf", 'main ::= "x"', "a.gbnf:1:1: the grammar has no rule named root"),
        ("a.lark", "start: T\nT: /a/\nT: /b/\n", "a.lark:3:4: duplicate token"),
        ("a.lark", 'start: ("a"\n', "a.lark:1:12: Expected token ')'"),
        ("a.lark", "start: /(/", "a.lark:1:8: invalid regex"),
    ],
)
def test_a_mistake_has_its_place(run: Run, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    ran = run("grammar", "validate", name)
    assert (ran.code, ran.out) == (4, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_other_arguments_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(SCHEMA)
    assert run("grammar", "from-schema", "s.json", "--kind", "gbnf").code == 4
    assert run("grammar", "from-schema").code == 4
    assert run("grammar", "validate", "missing.gbnf").code != 0
