"""The overlay: its entries join the manifest, whose own names have precedence."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import ManifestError
from mullama.manifest.tree import block_to_tree, parse_resolved, revision
from mullama.reconcile.overlay import combine, split

TINY = {"from": "builtin:tiny"}
MANIFEST = parse_resolved({"mullama": "v1", "models": {"a": TINY}, "routes": {"default": "a"}})


def test_a_combined_manifest_is_that_of_the_combined_tree() -> None:
    combined = combine(MANIFEST, {"b": {**TINY, "system": "hi"}, "r": {"route": "b"}, "s": {"route": "a"}})

    tree = block_to_tree(MANIFEST)
    tree["models"]["b"] = {**TINY, "system": "hi"}
    tree["routes"] |= {"r": "b", "s": "a"}
    assert combined == parse_resolved(tree)
    assert revision(combined) == revision(parse_resolved(tree))


def test_an_empty_overlay_changes_nothing() -> None:
    assert combine(MANIFEST, {}) is MANIFEST


def test_names_of_the_manifest_have_precedence() -> None:
    combined = combine(MANIFEST, {"A:latest": {**TINY, "system": "hi"}, "DEFAULT": {"route": "a"}, "r": {"route": "x"}})
    assert combined == MANIFEST


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        ({"b": {"from": "./x.gguf"}}, "models.b.from"),
        ({"b": {**TINY, "system": 3}}, "models.b.system"),
        ({"b": {**TINY, "mmproj": 3}}, "models.b.mmproj"),
        ({"b": TINY, "B:latest": TINY}, "models.B:latest"),
    ],
)
def test_an_invalid_entry_is_refused_with_its_path(overlay: dict[str, Any], path: str) -> None:
    with pytest.raises(ManifestError) as caught:
        combine(MANIFEST, overlay)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_combined_manifest_is_split_into_its_parts() -> None:
    overlay = {"b": block_to_tree(combine(MANIFEST, {"b": TINY}).models["b"]), "r": {"route": "b"}}
    assert split(combine(MANIFEST, overlay), ("b", "r")) == (MANIFEST, overlay)
