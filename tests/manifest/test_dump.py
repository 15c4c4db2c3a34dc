"""YAML that is written reads back as the same tree, by PyYAML's safe loader too."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.dump import to_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
TREES = st.recursive(SCALARS | TEXT, lambda t: st.lists(t) | st.dictionaries(TEXT, t), max_leaves=20)


@given(st.dictionaries(TEXT, TREES))
def test_any_tree_reads_back_as_itself(tree: dict[str, object]) -> None:
    assert yaml.safe_load(to_yaml(tree)) == (tree or None) or tree == {}


@pytest.mark.parametrize("text", ["on", "No", "null", "~", "1:30", "0777", "1e3", "-", "", " a", "a: b", "#", ".inf"])
def test_text_that_some_yaml_takes_for_more_is_quoted(text: str) -> None:
    assert yaml.safe_load(to_yaml({"key": text})) == {"key": text}
    assert '"' in to_yaml({"key": text})


def test_names_and_sources_stay_bare() -> None:
    tree = {"models": {"qwen3:8b": {"from": "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M"}}, "stop": ["a", {"b": 1, "c": []}]}
    assert to_yaml(tree) == (
        "models:\n  qwen3:8b:\n    from: hf:Qwen/Qwen3-8B-GGUF:Q4_K_M\nstop:\n  - a\n  - b: 1\n    c: []\n"
    )
