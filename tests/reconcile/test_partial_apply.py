"""What is applied while files are still to come: the rest of the wish, and nothing that is served goes."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, Observed
from mullama.reconcile.partial_apply import missing_models, servable_part, without
from mullama.struct import replace
from mullama.weights.facts import ProjectorFacts
from mullama.weights.stored import ProjectorFile


def manifest(models: str, **blocks: Any) -> Manifest:
    """Models by name, each from a builtin of that name; `a=x` says another one."""
    pairs = [text.partition("=")[::2] for text in models.split()]
    return parse_resolved({"mullama": "v1", "models": {n: {"from": f"builtin:{f or n}"} for n, f in pairs}, **blocks})


def sources(made: Manifest | None) -> str:
    assert made is not None
    pairs = ((name, model.from_.removeprefix("builtin:")) for name, model in made.models.items())
    return " ".join(name if name == source else f"{name}={source}" for name, source in pairs)


MOVED = {"moved": [{"from": "a", "to": "b"}]}


@pytest.mark.parametrize(
    ("applied", "desired", "blocks", "lacks", "now"),
    [
        ("a", "a b", {}, "b", "a"),
        ("a", "a b c", {}, "b", "a c"),
        ("a", "a=x", {}, "a", "a"),
        ("a b", "a=x b=y", {}, "a", "b=y a"),
        ("a b", "b c", {}, "c", "b a"),
        ("a", "b=a", MOVED, "", "b=a"),
        ("a", "b", MOVED, "b", "a"),
        ("a", "b c", MOVED, "c", "b"),
        ("A", "a=x", {}, "a", "A"),
    ],
)
def test_a_model_without_files_stays_as_it_is_and_nothing_goes(
    applied: str, desired: str, blocks: dict[str, Any], lacks: str, now: str
) -> None:
    assert sources(servable_part(manifest(desired, **blocks), manifest(applied), lacks.split())) == now


@pytest.mark.parametrize(
    ("before", "after", "now"),
    [
        ({}, {"r": "b"}, {}),
        ({"r": "a"}, {"r": "b"}, {"r": "a"}),
        ({"r": "a"}, {"r": "c"}, {"r": "c"}),
        ({"r": "a"}, {}, {}),
        ({}, {"a": "c"}, {"a": "c"}),
    ],
)
def test_a_route_to_a_model_that_is_not_here_leads_where_it_did(
    before: dict[str, str], after: dict[str, str], now: dict[str, str]
) -> None:
    made = servable_part(manifest("b c", routes=after), manifest("a c", routes=before), ["b"])

    assert made is not None
    assert made.routes == now


def test_keys_for_a_model_that_is_not_here_leave_all_keys_as_they_are() -> None:
    def keys(*names: str) -> dict[str, Any]:
        return {"keys": {n: {"secret": {"from_env": "K"}, "models": [n]} for n in names}}

    applied = manifest("a", auth=keys("a"))

    held = servable_part(manifest("a b c", auth=keys("a", "b", "c")), applied, ["b"])
    free = servable_part(manifest("a b c", auth=keys("a", "c")), applied, ["b"])

    assert held is not None
    assert list(held.auth.keys) == ["a"]
    assert free is not None
    assert list(free.auth.keys) == ["a", "c"]


def test_the_rest_of_the_wish_is_the_new_one() -> None:
    made = servable_part(manifest("a b", server={"limits": {"queue": 7}}), manifest("a"), ["b"])

    assert made is not None
    assert made.server.limits.queue == 7


def test_what_cannot_be_a_manifest_waits_as_a_whole() -> None:
    desired = manifest(
        "b", server={"listen": ["0.0.0.0:1"]}, auth={"keys": {"b": {"secret": {"from_env": "K"}, "models": ["b"]}}}
    )

    assert servable_part(desired, manifest("a"), ["b"]) is None


def test_models_lack_files_that_are_not_here_or_were_never_hashed() -> None:
    applied, desired = manifest("a gone"), manifest("a=x b c d e f")
    sees = ProjectorFile(path="/mmproj.gguf", facts=ProjectorFacts(vision=True))
    hashed = KnownFiles(source="builtin:e", stored=True, digest="sha256:2", projector=sees)
    files = {
        "builtin:e": hashed,
        "builtin:f": replace(hashed, source="builtin:f", projector=replace(sees, digest="sha256:3")),
        "builtin:x": KnownFiles(source="builtin:x", stored=True, digest="sha256:1"),
        "builtin:b": KnownFiles(source="builtin:b"),
        "builtin:c": KnownFiles(source="builtin:c", stored=True),
    }
    plan = make_plan(desired, Observed(applied=Applied(generation=1, revision="", manifest=applied), files=files))

    lacks = missing_models(plan, desired, files)

    assert lacks == {"b", "c", "d", "e"}
    assert {step.subject for step in without(plan, lacks).steps if step.kind == "model"} == {"a", "f", "gone"}


def test_a_route_with_options_and_a_group_are_served_as_far_as_their_models_are_there() -> None:
    on_demand = {"residency": {"load": "on_demand"}}
    tree = {
        "mullama": "v1",
        "models": {name: {"from": "builtin:tiny", **on_demand} for name in ("a", "b", "late")},
        "routes": {
            "both": {"to": [{"model": "a"}, {"model": "b"}], "fallback": ["b"]},
            "waits": {"to": [{"model": "late"}, {"model": "a"}]},
        },
        "groups": {"g": {"models": ["a", "late"]}, "empty": {"models": ["late"]}},
    }
    part = servable_part(parse_resolved(tree), parse_resolved({"mullama": "v1"}), {"late"})
    assert part is not None
    assert set(part.models) == {"a", "b"}
    assert set(part.routes) == {"both"}
    assert {name: group.models for name, group in part.groups.items()} == {"g": ("a",)}
