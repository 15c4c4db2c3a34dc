"""Two revisions of the history against each other."""

from __future__ import annotations

from typing import Any

from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.manifest.tree import revision as digest_of
from mullama.reconcile.compare_revisions import compare_revisions
from mullama.store.records import Revision


def kept(number: int, models: dict[str, Any]) -> Revision:
    manifest = parse_resolved({"mullama": "v1", "models": models})
    return Revision(
        generation=number, revision=digest_of(manifest), manifest=block_to_tree(manifest), when=0.0, trigger="apply",
        by="me", origin={}, summary={},
    )  # fmt: skip


A = {"from": "https://example.com/a.gguf?token=secret", "context": {"size": 2048}}


def test_the_texts_have_what_differs_from_the_defaults_and_no_secret() -> None:
    found = compare_revisions(kept(3, {"a": A}), kept(5, {"a": {**A, "context": {"size": 1024}}}))
    before, after = found["texts"]
    assert (found["before"], found["after"]) == (3, 5)
    assert "size: 2048" in before
    assert "size: 1024" in after
    assert "residency" not in before  # a default
    assert "secret" not in before + after


def test_the_plan_leads_from_one_to_the_other_in_both_directions() -> None:
    one, two = kept(3, {"a": A}), kept(5, {"a": A, "b": {"from": "/m/b.gguf"}})
    there, back = (compare_revisions(*pair)["plan"]["steps"] for pair in ((one, two), (two, one)))
    assert [(step["action"], step["subject"]) for step in there] == [("add", "b")]
    assert [(step["action"], step["subject"]) for step in back] == [("remove", "b")]
    assert compare_revisions(one, one)["plan"]["steps"] == []
    assert compare_revisions(one, two)["plan"]["drift"] == []  # of a machine that nobody looked at
