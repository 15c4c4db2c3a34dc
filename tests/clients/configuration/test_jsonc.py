"""JSON with comments: edited in place, with every other character as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.clients import jsonc
from mullama.clients.base import Edit, ListEntry
from mullama.clients.edits import edited, with_value
from mullama.clients.spans import DamagedText

ZED = """// my settings
{
  "theme": "One Dark", // dark
  /* the models */
  "language_models": {
    "openai": {"api_url": "https://api.openai.com/v1"} // mine
  },
  "tab_size": 4,
}
"""

EDITS = [
    ('{"a": 1}', ("a",), 2, '{"a": 2}'),
    ('{"a": 1}', ("b",), 2, '{"a": 1, "b": 2}'),
    ("{}", ("b",), "x", '{\n  "b": "x"\n}'),
    ("", ("b",), "x", '{\n  "b": "x"\n}\n'),
    ("// mine\n", ("b",), 1, '// mine\n{\n  "b": 1\n}\n'),
    ('{\n\t"a": 1 // one\n}\n', ("b",), [1], '{\n\t"a": 1, // one\n\t"b": [1]\n}\n'),
    ('{\n    "a": 1,\n}', ("b",), 2, '{\n    "a": 1,\n    "b": 2,\n}'),
    ('{\r\n  "a": 1\r\n}\r\n', ("b",), {"c": 2}, '{\r\n  "a": 1,\r\n  "b": {\r\n    "c": 2\r\n  }\r\n}\r\n'),
    ("{\n  // nothing yet\n}", ("b",), 1, '{\n  // nothing yet\n  "b": 1\n}'),
    ('{"a": null}', ("a", "b"), 1, '{"a": {\n  "b": 1\n}}'),
    ('{"a": {"b": 1, "c": 2}}', ("a",), {"b": 9}, '{"a": {"b": 9, "c": 2}}'),
    ('[{"id": "x", "n": 1}]', (ListEntry("id", "x"), "n"), 2, '[{"id": "x", "n": 2}]'),
    ("[1]", (ListEntry("id", "x"), "n"), 2, '[1, {"id": "x", "n": 2}]'),
    ('{"k": 1 /* , */ , "z": 2}', ("k",), 3, '{"k": 3 /* , */ , "z": 2}'),
    ('{"a": "/*", "b": "//"}', ("b",), '\u00e9"', '{"a": "/*", "b": "é\\""}'),
]


@pytest.mark.parametrize(("text", "path", "value", "expected"), EDITS)
def test_a_field_is_set_where_it_belongs(text: str, path: tuple[Any, ...], value: Any, expected: str) -> None:
    made = edited("jsonc", text, [Edit(path=path, value=value)], "f")
    assert made == expected
    assert edited("jsonc", made, [Edit(path=path, value=value)], "f") == expected


def test_comments_order_and_foreign_keys_stay() -> None:
    path = ("language_models", "openai_compatible", "mullama", "api_url")
    made = edited("jsonc", ZED, [Edit(path=path, value="http://h/v1")], "f")
    added = """, // mine
    "openai_compatible": {
      "mullama": {
        "api_url": "http://h/v1"
      }
    }
"""
    assert added in made
    assert made.replace(added, " // mine\n") == ZED


DAMAGED = [
    ('{"a": 1', 1, 1, "not closed"),
    ('{\n  "a": 1,,\n}', 2, 10, "a key in double quotes"),
    ('{"a" 1}', 1, 6, "':'"),
    ('{\n "a": tru\n}', 2, 7, "a value is expected"),
    ('{"a": 1} {}', 1, 10, "after the end"),
    ('{"a": "x\n"}', 1, 7, "not closed"),
    ('{"a": 1 "b": 2}', 1, 9, "',' or '}'"),
    ("/* x", 1, 1, "comment is not closed"),
    ('{"a": 1, "a": 2}', 1, 10, "twice"),
    ("[" * 200, 1, 102, "nested deeper"),
    ("1" * 5000, 1, 1, "too many digits"),
    ("nul", 1, 1, "a value is expected"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), DAMAGED)
def test_a_damaged_text_has_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(DamagedText) as caught:
        jsonc.read(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.characters(codec="utf-8"), max_size=5)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@given(st.dictionaries(KEYS, TREES, max_size=4), st.lists(KEYS, min_size=1, max_size=3), SCALARS,
       st.sampled_from([None, 2, "\t"]), st.booleans())  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_field_of_any_file_is_set_and_nothing_else(
    tree: dict[str, Any], path: list[str], value: Any, indent: Any, sort: bool
) -> None:
    text = json.dumps(tree, indent=indent, sort_keys=sort, ensure_ascii=sort)
    inner: Any = tree
    for step in path[:-1]:
        inner = inner.get(step) if isinstance(inner, dict) else inner
    if isinstance(inner, dict | None) and all(isinstance(step, str) for step in path):
        try:
            wanted = with_value(tree, path, value, "f")
        except Exception:  # noqa: BLE001 - a path through a scalar is refused, see test_edits
            return
        assert jsonc.read(edited("jsonc", text, [Edit(path=tuple(path), value=value)], "f")) == wanted
