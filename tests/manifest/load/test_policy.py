"""Policy files, and their mistakes with places."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import ManifestError, NotFound
from mullama.manifest.load.policy import load_policy


def test_a_policy_is_read_with_sizes_of_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("policy: v1\nkeep: [chat]\nmax_download: 20GiB\npinned: true\nx-note: 1\n")
    policy = load_policy(str(path), "policy.yaml")
    assert policy.keep == ("chat",)
    assert policy.max_download == 20 << 30
    assert policy.pinned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "policy.yaml:1:1: expected a map (begin with `policy: v1`)"),
        ("- a", "policy.yaml:1:1: expected a map (begin with `policy: v1`)"),
        ("keep: [a]\n", "policy.yaml:1:1: policy: is required"),
        ("policy: v2\n", "policy.yaml:1:9: policy: expected v1, got 'v2'"),
        ("policy: v1\nkep: [a]\n", "policy.yaml:2:1: kep: no such field (did you mean keep?)"),
        ("policy: v1\nkeep: a\n", "policy.yaml:2:7: keep: expected a list, got 'a' (put brackets around it)"),
        ("policy: v1\nsources: []\n", "policy.yaml:2:1: sources: must have at least 1 entries"),
        ("policy: v1\nkeep: [a\n", "policy.yaml:2:7:"),
        ("policy: v1\npolicy: v1\n", "policy.yaml:2:1:"),
    ],
)
def test_mistakes_have_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError) as raised:
        load_policy(str(path), "policy.yaml")
    assert str(raised.value.problems[0]).startswith(message)


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("policy: v1\nkep: [a]\nkeep: a\nmax_download: 3 apples\n")
    with pytest.raises(ManifestError) as raised:
        load_policy(str(path), "policy.yaml")
    assert [problem.path for problem in raised.value.problems] == ["kep", "keep", "max_download"]
    assert raised.value.document == "the policy"


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no policy p\.yaml"):
        load_policy(str(tmp_path / "p.yaml"), "p.yaml")
