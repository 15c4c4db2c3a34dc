"""YAML: edited in place, with every other character as it was."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.clients import yaml_text
from mullama.clients.base import Edit, ListEntry
from mullama.clients.edits import edited, with_value
from mullama.clients.spans import DamagedText
from mullama.errors import Refused

CONTINUE = """# my assistant
name: Local Config
version: 1.0.0
models: # the good ones
  - name:   'Claude'   # paid
    provider: anthropic
    apiKey: ${{ secrets.ANTHROPIC }}

  # the end of the models
rules: [ "short",  'kind' ]
"""
ADDED = """  - name: mullama chat
    apiBase: http://h/v1
    apiKey: "${{ secrets.KEY }}"
    roles: [chat, edit]
    defaultCompletionOptions:
      contextLength: 4096
"""

EDITS = [
    ("a: 1\n", ("a",), 2, "a: 2\n"),
    ("a: 1 # one\n\n# end\n", ("b",), "x", "a: 1 # one\nb: x\n\n# end\n"),
    ("a: 1", ("b",), "x", "a: 1\nb: x\n"),
    ("", ("b",), "x y", "b: x y\n"),
    ("# only a comment\n", ("b",), True, "# only a comment\nb: true\n"),
    ("a: 1\r\nc: 2\r\n", ("b",), 3, "a: 1\r\nc: 2\r\nb: 3\r\n"),
    ("a:\nb: ~\n", ("a",), 1, "a: 1\nb: ~\n"),
    ("a:\nb: ~\n", ("a", "c"), 1, "a:\n  c: 1\nb: ~\n"),
    ("a: {x: 1}\n", ("a", "y"), "z", 'a: {x: 1, "y": "z"}\n'),
    ("a: []\n", ("a", ListEntry("n", "m")), {"k": 1}, 'a: [{"n": "m", "k": 1}]\n'),
    ("- n: m\n  k: 1 # one\n", (ListEntry("n", "m"), "k"), 2, "- n: m\n  k: 2 # one\n"),
    ("a: |\n  text\n  more\nb: 1\n", ("c",), 2, "a: |\n  text\n  more\nb: 1\nc: 2\n"),
    ("b: 1\na: |\n  text\n", ("c",), 2, "b: 1\na: |\n  text\nc: 2\n"),
    ("a:\n- id: 1\n- id: 2\n", ("a", ListEntry("id", "x"), "k"), 1, "a:\n- id: 1\n- id: 2\n- id: x\n  k: 1\n"),
    ("a: 'off'\n", ("b",), "off", "a: 'off'\nb: \"off\"\n"),
    ("x: &x {a: 1}\ny: *x\n", ("z",), 1, "x: &x {a: 1}\ny: *x\nz: 1\n"),
    ("a: !custom v\n", ("b",), 1, "a: !custom v\nb: 1\n"),
    ("---\na: 1\n...\n", ("b",), 1, "---\na: 1\nb: 1\n...\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "value", "expected"), EDITS)
def test_a_field_is_set_where_it_belongs(text: str, path: tuple[Any, ...], value: Any, expected: str) -> None:
    made = edited("yaml", text, [Edit(path=path, value=value)], "f")
    assert made == expected
    assert edited("yaml", made, [Edit(path=path, value=value)], "f") == expected


def test_comments_quotes_and_foreign_lines_stay() -> None:
    value = {
        "apiBase": "http://h/v1", "apiKey": "${{ secrets.KEY }}", "roles": ["chat", "edit"],
        "defaultCompletionOptions": {"contextLength": 4096},
    }  # fmt: skip
    made = edited("yaml", CONTINUE, [Edit(path=("models", ListEntry("name", "mullama chat")), value=value)], "f")
    assert ADDED in made
    assert made.replace(ADDED, "") == CONTINUE


def test_a_value_that_an_alias_refers_to_is_not_lost() -> None:
    with pytest.raises(Refused, match="without changing more of it"):
        edited("yaml", "a: &x 1\nb: *x\n", [Edit(path=("a",), value=2)], "f")


DAMAGED = [
    ("a: [1\nb: 2\n", 2, 2, ""),
    ("a: 'x\n", 2, 1, ""),
    ("a: 1\n\tb: 2\n", 2, 1, ""),
    ("a: 1\na: 2\n", 2, 1, "twice"),
    ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
    ("a: *x\n", 1, 4, "no anchor"),
    ("? [a]\n: 1\n", 1, 3, "a key is a plain text"),
    ("a: \x01\n", 1, 4, "U+0001"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), DAMAGED)
def test_a_damaged_text_has_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(DamagedText) as caught:
        yaml_text.read(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message


KEYS = st.from_regex(r"\A[a-z]{1,3}\Z")
SCALARS = st.booleans() | st.integers(-9, 9) | st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=6)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@pytest.mark.parametrize("character", ["\x7f", "\x80", "\x85", "\u2028", "\ufeff", "\uffff", "😀"])
@pytest.mark.parametrize("text", ["{}\n", "b: 1\n"])
def test_a_character_that_yaml_does_not_allow_or_folds_is_escaped(text: str, character: str) -> None:
    value = f"x {character} y"
    made = edited("yaml", text, [Edit(path=("a",), value=value)], "f")
    assert yaml_text.read(made)["a"] == yaml.safe_load(made)["a"] == value


@given(st.dictionaries(KEYS, TREES, max_size=4), st.lists(KEYS, min_size=1, max_size=2), SCALARS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_field_of_any_file_is_set_and_nothing_else(
    tree: dict[str, Any], path: list[str], value: Any, flow: bool
) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, sort_keys=False)
    before = yaml_text.read(text)
    try:
        wanted = with_value(before, path, value, "f")
    except Refused:  # the path leads through a scalar
        return
    made = edited("yaml", text, [Edit(path=tuple(path), value=value)], "f")
    assert yaml_text.read(made) == wanted
    assert yaml.safe_load(made)[path[0]] is not None
