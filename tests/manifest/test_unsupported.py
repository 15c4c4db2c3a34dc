"""What is refused with its reason, and what its default says, which is not."""

from __future__ import annotations

import pytest

from mullama.errors import ManifestError
from mullama.manifest.tree import manifest_to_tree, parse_resolved
from mullama.manifest.unsupported import INSTEAD, REFUSALS
from tests.manifest.builders import problems, read

A = "models: {a: {from: builtin:tiny, %s}}"

# One manifest for each line of the table, with the start of what is said.
REFUSED = {
    "models.*.mmproj": (A % "mmproj: hf:a/b", "m.yaml:2:42: models.a.mmproj: images and sound are not supported yet"),
}


def test_every_line_of_the_table_is_tried() -> None:
    assert set(REFUSED) == set(REFUSALS)
    assert set(INSTEAD) <= set(REFUSALS)


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_is_not_supported_is_refused_with_its_place_and_reason(pattern: str) -> None:
    text, expected = REFUSED[pattern]
    said = problems(text)
    assert [line for line in said if line.startswith(expected)], said
    assert any("(" in line for line in said)


HARMLESS = [
    "groups: {}",
    "server: {tls: null}",
    "sync: {git: null}",
    "prune: {files: false}",
    A % "rollout: {strategy: auto}",
    A % "limits: {rate: null}",
    A % "mmproj: null",
    "models: {a: builtin:tiny}\nroutes: {r: {to: [{model: a}], fallback: [], on_error: []}}",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_says_nothing_is_not_refused(text: str) -> None:
    assert not problems(text)


def test_a_resolved_manifest_is_refused_the_same_things() -> None:
    tree = manifest_to_tree(read("models: {a: builtin:tiny}").manifest)
    tree["models"]["a"]["mmproj"] = "builtin:tiny"
    with pytest.raises(ManifestError) as caught:
        parse_resolved(tree)
    assert [problem.path for problem in caught.value.problems] == ["models.a.mmproj"]
