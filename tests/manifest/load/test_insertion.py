"""An entry is added, and nothing else of a text changes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Conflict, ManifestError, MullamaError, Refused
from mullama.manifest.load.insertion import insert_entry

ENTRY = {"from": "hf:org/m:Q4_K_M", "context": {"size": 8192}}
BLOCK = "  new:\n    from: hf:org/m:Q4_K_M\n    context:\n      size: 8192\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("mullama: v1\nmodels:\n  a: x # note\n", f"mullama: v1\nmodels:\n  a: x # note\n{BLOCK}"),
        ("models:\n  a: x\n\n# routes\nroutes: {}\n", f"models:\n  a: x\n{BLOCK}\n# routes\nroutes: {{}}\n"),
        ("models:\n  a: x\n  # b: later\n", f"models:\n  a: x\n{BLOCK}  # b: later\n"),
        ("models:\n  a: x", f"models:\n  a: x\n{BLOCK}"),
        ("models:\n  a:\n    from: x\n    system: |\n      Be kind.\n\nroutes: {}\n",
         f"models:\n  a:\n    from: x\n    system: |\n      Be kind.\n\n{BLOCK}routes: {{}}\n"),
        ("models: # all\nroutes: {}\n", f"models: # all\n{BLOCK}routes: {{}}\n"),
        ("models: ~\n", f"models: \n{BLOCK}"),
        ("mullama: v1\n", f"mullama: v1\nmodels:\n{BLOCK}"),
        ("", f"models:\n{BLOCK}"),
        ("# only a comment\n", f"# only a comment\nmodels:\n{BLOCK}"),
        ("models: {}\n", 'models: {"new": {"from": "hf:org/m:Q4_K_M", "context": {"size": 8192}}}\n'),
        ("models: {a: x, } # c\n",
         'models: {a: x, "new": {"from": "hf:org/m:Q4_K_M", "context": {"size": 8192}}, } # c\n'),
        ("models:\r\n  a: x\r\n", f"models:\r\n  a: x\r\n{BLOCK}".replace("\r\n", "\n").replace("\n", "\r\n")),
        ("models:\n  a: &x {from: b}\n  c: *x\n", f"models:\n  a: &x {{from: b}}\n  c: *x\n{BLOCK}"),
        ("models:\n  a:\n", f"models:\n  a:\n{BLOCK}"),
    ],
)  # fmt: skip
def test_an_entry_is_added_at_its_place(before: str, after: str) -> None:
    assert insert_entry(before, ("models", "new"), ENTRY) == after


def test_maps_on_the_way_are_made() -> None:
    value = {"secret": {"from_env": "K"}}
    made = insert_entry("auth:\n    keys:\n        a: {secret: {from_env: A}}\n", ("auth", "keys", "b"), value)
    assert made.endswith("        b:\n          secret:\n            from_env: K\n")
    assert yaml.safe_load(insert_entry("a: 1\n", ("auth", "keys", "b"), value))["auth"] == {"keys": {"b": value}}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("models:\n  new: x\n", Conflict),
        ("models: [a]\n", Refused),
        ("models: text\n", Refused),
        ("a: &m {x: 1}\nmodels: *m\n", Refused),
        ("models: {a\n", ManifestError),
        ("- a\n", MullamaError),
    ],
)
def test_a_text_that_cannot_take_the_entry_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        insert_entry(text, ("models", "new"), ENTRY)


words = st.text(st.sampled_from("abcXY:-# '\"{}[],&*|>\n\té0.~"), max_size=8)
trees: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from("abc"), trees, max_size=3),
    st.dictionaries(st.sampled_from("xyz"), trees, max_size=3),
    st.sampled_from([None, False, True]),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_the_tree_gains_the_entry_and_the_text_keeps_its_lines(
    others: dict[str, Any], models: dict[str, Any], flow: bool | None, indent: int, last: bool
) -> None:
    tree = {**others, "models": models} if last else {"models": models, **others}
    text = "# before\n" + yaml.safe_dump(tree, default_flow_style=flow, indent=indent, sort_keys=False) + "# after\n"
    made = insert_entry(text, ("models", "new"), ENTRY)
    assert yaml.safe_load(made) == {**tree, "models": {**models, "new": ENTRY}}
    rest = iter(made)
    assert all(character in rest for character in text.replace("models: {}", "models: {").replace("models: null", ""))
