"""Plans against the rules of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from mullama.manifest.spec import Manifest, Policy
from mullama.plan.findings import _RULES
from mullama.plan.make import make_plan
from mullama.plan.observed import KnownFiles
from mullama.plan.review import rules, violations
from mullama.plan.steps import Action
from tests.plan.builders import MANIFESTS, STORED, manifest, model, observed
from tests.plan.test_report import plan, step

GIB = 1 << 30
Files = Mapping[str, KnownFiles]
FILES: Files = {"/m/a.gguf": STORED}


def policy(**fields: Any) -> Policy:
    return Policy.model_validate({"policy": "v1", **fields})


def broken(
    rule: Policy, *steps: Any, desired: Manifest | None = None, files: Any = FILES, pinned: Any = ()
) -> list[str]:
    found = violations(rule, plan(*steps), desired or manifest(), files, pinned)
    return [f"{v.rule} {v.subject}: {v.message}" for v in found]


@pytest.mark.parametrize(
    ("keep", "found"),
    [
        ((), []),
        (("chat",), ["keep chat: chat is removed"]),
        (("prod-*",), ["keep prod-a: prod-a is renamed to b"]),
        (("*",), ["keep chat: chat is removed", "keep prod-a: prod-a is renamed to b"]),
        (("b", "CHAT"), []),
    ],
)
def test_kept_models_are_neither_removed_nor_renamed(keep: tuple[str, ...], found: list[str]) -> None:
    steps = (
        step("chat", Action.REMOVE),
        step("b", Action.RENAME, renamed_from="prod-a"),
        step("chat", Action.UPDATE),
        step("routes", Action.REMOVE, kind="block"),
    )
    assert broken(policy(keep=keep), *steps) == found


def test_requests_to_uninterrupted_models_do_not_wait() -> None:
    steps = (
        step("a", Action.REPLACE, pause=True, detail="does not fit twice: pause"),
        step("b", Action.REPLACE, pause=True),
        step("c", Action.REPLACE),
    )
    assert broken(policy(uninterrupted=["a", "c"]), *steps) == [
        "uninterrupted a: requests to a wait: does not fit twice: pause"
    ]


def test_only_allowed_sources() -> None:
    desired = manifest(
        good={"from": "hf:unsloth/a:Q4_K_M"},
        bad={"from": "hf:other/a:Q4_K_M"},
        adapted={"from": "builtin:tiny", "adapters": [{"from": "https://example.org/a.gguf"}]},
        drafted={"from": "builtin:tiny", "draft": {"from": "hf:other/b:Q8_0"}},
    )
    assert broken(policy(sources=["builtin:*", "hf:unsloth/*"]), desired=desired) == [
        "sources bad: hf:other/a:Q4_K_M is not an allowed source",
        "sources adapted: https://example.org/a.gguf is not an allowed source",
        "sources drafted: hf:other/b:Q8_0 is not an allowed source",
    ]


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [("./gguf/*", True), ("/srv/gguf/*", True), ("gguf/*", False), ("./b", False)],
)
def test_a_relative_pattern_is_from_the_folder_of_the_manifest(pattern: str, allowed: bool) -> None:
    desired = manifest(a={"from": "/srv/gguf/a.gguf"})
    found = violations(policy(sources=[pattern]), plan(), desired, FILES, (), "/srv")
    assert (found == ()) is allowed
    assert violations(policy(sources=["./*"]), plan(), desired, FILES, (), "/sr") != ()


def test_sources_need_a_digest_in_the_manifest_or_the_lock_file() -> None:
    digest = "sha256:" + "0" * 64
    desired = manifest(
        locked={"from": "hf:a/b:Q4_K_M"},
        declared={"from": "https://example.org/a.gguf", "digest": digest},
        builtin={"from": "builtin:tiny", "adapters": [{"from": "https://example.org/x.gguf", "digest": digest}]},
        loose={"from": "hf:a/c:Q4_K_M"},
        local={"from": "/m/a.gguf"},
    )
    assert broken(policy(pinned=True), desired=desired, pinned=["hf:a/b:Q4_K_M"]) == [
        "pinned loose: hf:a/c:Q4_K_M has no digest: mullama lock writes it",
        "pinned local: /m/a.gguf has no digest: declare its `digest`",
    ]
    assert broken(policy(pinned=False), desired=desired) == []


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((GIB, GIB), []),
        ((GIB, GIB + 1), ["max_download : 2.00 GiB to download, and 2.00 GiB are allowed"]),
        ((4 * GIB,), ["max_download : 4.00 GiB to download, and 2.00 GiB are allowed"]),
        ((None,), ["max_download m0: the download of m0 has an unknown size: mullama lock writes it"]),
    ],
)
def test_the_bytes_to_download_are_limited(sizes: tuple[int | None, ...], found: list[str]) -> None:
    steps = [step(f"m{i}", Action.ADD, bytes_download=count) for i, count in enumerate(sizes)]
    assert broken(policy(max_download="2GiB"), *steps) == found


def test_shared_weights_count_once_against_the_memory() -> None:
    two = manifest(a=model(), b=model(system="x"))
    (found,) = broken(policy(max_memory="1MiB"), desired=two)
    (alone,) = broken(policy(max_memory="1MiB"), desired=manifest(a=model()))
    assert found.replace("2 models that stay loaded need", "1 model that stays loaded needs") == alone
    assert broken(policy(max_memory="16GiB"), desired=two) == []


def test_models_that_do_not_stay_loaded_need_no_memory() -> None:
    desired = manifest(a=model(residency={"load": "on_demand"}), b=model(residency={"ttl": "5m"}))
    assert broken(policy(max_memory="1MiB"), desired=desired) == []


@pytest.mark.parametrize("files", [{}, {"/m/a.gguf": KnownFiles(source="/m/a.gguf")}])
def test_unknown_memory_breaks_the_limit(files: dict[str, KnownFiles]) -> None:
    assert broken(policy(max_memory="64GiB"), desired=manifest(a=model()), files=files) == [
        "max_memory a: the memory of a is not known: mullama lock writes it"
    ]


def test_rules_are_those_that_the_file_sets() -> None:
    assert rules(policy()) == ()
    assert rules(policy(pinned=False)) == ()
    assert rules(policy(pinned=True, keep=["a"], max_download=0)) == ("keep", "pinned", "max_download")


def test_each_rule_has_its_words_in_a_report() -> None:
    assert set(Policy.model_fields) - {"policy"} <= set(_RULES)


@given(MANIFESTS, MANIFESTS)
def test_a_policy_without_rules_allows_every_plan(before: Manifest, after: Manifest) -> None:
    found = violations(policy(), make_plan(after, observed(before)), after, FILES, ())
    assert found == ()


@given(MANIFESTS, MANIFESTS)
def test_keeping_all_models_refuses_each_removal(before: Manifest, after: Manifest) -> None:
    made = make_plan(after, observed(before))
    found = violations(policy(keep=["*"]), made, after, FILES, ())
    assert tuple(v.subject for v in found) == made.removes
