"""YAML that is written reads back as the same tree, by PyYAML's safe loader too."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.dump import to_yaml, with_units
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import block_to_tree, parse_resolved

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


def test_sizes_and_durations_have_units_and_read_back_as_the_same() -> None:
    keep = {"prefixes": 3 * 2**20, "ram": 1001}
    tree = {
        "mullama": "v1",
        "server": {"limits": {"body": 8 * 2**20, "queue_timeout": 1.5}},
        "hardware": {"budget": {"ram": "80%", "gpu": {"0": 22 * 2**30}, "reserve": 1536}},
        "models": {
            "a": {
                "from": "builtin:tiny",
                "context": {"checkpoints": 2**30},
                "residency": {"ttl": "never", "keep": keep},
                "limits": {"timeout": 600},
            },
            "b": {"from": "builtin:tiny", "residency": {"ttl": 1e15 / 3}},
        },
        "routes": {"r": {"to": [{"model": "a"}]}, "s": "a"},
        "sync": {"git": {"url": "https://git.example.org/m.git", "interval": 90}},
    }
    manifest = parse_resolved(tree)

    shown = with_units(block_to_tree(manifest), Manifest)

    limits, budget, a, b = shown["server"]["limits"], shown["hardware"]["budget"], *shown["models"].values()
    assert (limits["body"], limits["queue_timeout"]) == ("8MiB", "1.5s")
    assert (budget["ram"], budget["gpu"], budget["reserve"]) == ("80%", {"0": "22GiB"}, "1536")
    assert a["context"]["checkpoints"] == "1GiB"
    assert b["context"]["checkpoints"] == "auto"
    assert (a["residency"]["ttl"], a["limits"]["timeout"], b["residency"]["ttl"]) == ("never", "10m", 1e15 / 3)
    assert (a["residency"]["keep"]["prefixes"], a["residency"]["keep"]["ram"]) == ("3MiB", "1001")
    assert shown["sync"]["git"]["interval"] == "90s"
    assert parse_resolved(yaml.safe_load(to_yaml(shown))) == manifest
