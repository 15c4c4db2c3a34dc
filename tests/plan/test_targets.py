"""A part of a manifest: what an apply of some models and routes brings, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import NotFound, Refused
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved, revision
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Observed
from mullama.plan.targets import plan_targets, require_undisturbed, targeted, undone_by
from mullama.plan.tools import ObservedTools


def manifest(models: str, **blocks: Any) -> Manifest:
    """Models by name, each from a builtin of that name; `a=x` says another one."""
    pairs = [text.partition("=")[::2] for text in models.split()]
    trees = {n: {"from": f"builtin:{f or n}", "residency": {"load": "on_demand"}} for n, f in pairs}
    return parse_resolved({"mullama": "v1", "models": trees, **blocks})


def observed(applied: Manifest, lacks: str = "", **more: Any) -> Observed:
    stored = {f"builtin:{n}": KnownFiles(source=f"builtin:{n}", stored=n not in lacks.split()) for n in "abcxy"}
    return Observed(applied=Applied(generation=1, revision="r", manifest=applied), files=stored, **more)


def sources(made: Manifest) -> str:
    pairs = ((name, model.from_.removeprefix("builtin:")) for name, model in made.models.items())
    return " ".join(name if name == source else f"{name}={source}" for name, source in pairs)


def key(*models: str) -> dict[str, Any]:
    return {"keys": {"ci": {"secret": {"from_env": "CI"}, "models": list(models)}}}


@pytest.mark.parametrize(
    ("applied", "desired", "names", "now"),
    [
        ("a b", "a=x b=y", "a", "b a=x"),
        ("a b", "a=x b=y", "a b", "a=x b=y"),
        ("a", "a=x b c", "b", "a b"),
        ("a b", "a=x", "b", "a"),  # a target that is not in the manifest any more is removed
        ("a b", "c", "c", "a b c"),  # the others stay, although they are not in the manifest
        ("A b", "a=x b", "a", "b a=x"),  # names are compared without case
        ("A b", "a=x b", "A", "b a=x"),
    ],
)
def test_only_the_targets_change(applied: str, desired: str, names: str, now: str) -> None:
    part = targeted(manifest(desired), manifest(applied), names.split())

    assert sources(part.manifest) == now


def test_a_route_brings_what_it_leads_to_and_a_model_does_not_bring_its_routes() -> None:
    routes = {
        "r": {"to": [{"model": "a", "weight": 9}, {"model": "b"}], "fallback": ["s", "c"]},
        "s": {"to": [{"model": "d"}]},
    }
    applied, desired = manifest("a b c d e"), manifest("a=1 b=2 c=3 d=4 e=5", routes=routes)

    part = targeted(desired, applied, ["r"])
    alone = targeted(desired, applied, ["a"])

    assert sources(part.manifest) == "e a=1 b=2 c=3 d=4"
    assert part.models == {"a", "b", "c", "d"}
    assert (part.manifest.routes, part.targets) == (desired.routes, ("r",))
    assert sources(alone.manifest) == "b c d e a=1"
    assert alone.manifest.routes == {}


def test_a_route_that_is_gone_is_removed_alone() -> None:
    applied = manifest("a b", routes={"r": "a", "s": "b"})

    part = targeted(manifest("a=x"), applied, ["r"])

    assert part.manifest.routes == {"s": "b"}
    assert sources(part.manifest) == "a b"


def test_a_renamed_model_is_a_target_by_both_of_its_names_and_its_entry_comes_along() -> None:
    applied, desired = manifest("a c"), manifest("b=a c=x", moved=[{"from": "a", "to": "b"}])

    for name in ("a", "b"):
        part = targeted(desired, applied, [name])

        assert sources(part.manifest) == "c b=a"
        assert [(move.from_, move.to) for move in part.manifest.moved] == [("a", "b")]
        steps = make_plan(part.manifest, observed(applied)).steps
        assert [(s.action.value, s.subject) for s in steps if s.kind == "model"] == [("rename", "b")]


def test_a_renamed_route_is_a_target_by_both_of_its_names() -> None:
    moved = [{"from": "r", "to": "s", "kind": "route"}, {"from": "k", "to": "l", "kind": "key"}]
    applied, desired = manifest("a", routes={"r": "a", "t": "a"}), manifest("a=x", routes={"s": "a"}, moved=moved)

    for name in ("r", "s"):
        part = targeted(desired, applied, [name])

        assert part.manifest.routes == {"t": "a", "s": "a"}
        assert [(move.from_, move.kind) for move in part.manifest.moved] == [("r", "route")]


def test_other_blocks_stay_applied_and_groups_have_the_targets_in_their_places() -> None:
    applied = manifest("a b", groups={"g": {"models": ["a", "b"], "max": 1}}, observability={"metrics": False})
    blocks = {"groups": {"g": {"models": ["b", "c"], "max": 2}, "h": {"models": ["a", "d"]}}}
    desired = manifest("a b c d", **blocks)

    part = targeted(desired, applied, ["a", "c"]).manifest

    assert part.observability.metrics is False
    assert {name: (group.models, group.max) for name, group in part.groups.items()} == {
        "g": (("b", "c"), 1),
        "h": (("a",), 1),
    }


def test_when_nothing_is_applied_the_settings_come_along_and_keys_reach_the_targets_only() -> None:
    desired = manifest("a b", routes={"r": "b"}, auth=key("a", "b", "r", "x*"), observability={"metrics": False})

    part = targeted(desired, None, ["a"]).manifest

    assert (sources(part), part.routes, part.observability.metrics) == ("a", {}, False)
    assert part.auth.keys["ci"].models == ("a", "x*")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    applied, desired = manifest("old"), manifest("chat code", routes={"default": "chat"})

    with pytest.raises(NotFound) as raised:
        targeted(desired, applied, ["code", "chatt", "defaul", "zzz", "not a name!"])

    assert raised.value.message == "there is no model or route 'chatt', 'defaul', 'zzz', 'not a name!' to target"
    assert raised.value.hint == "did you mean chat or default?"


@pytest.mark.parametrize(
    ("applied", "names", "needs"),
    [
        (manifest("a b", routes={"r": "b"}), ["b"], "routes.r: there is no model 'b'"),
        (manifest("a b", auth=key("b")), ["b"], "auth.keys.ci.models[0]: there is no model 'b'"),
    ],
)
def test_targets_that_need_another_change_are_refused_with_it(applied: Manifest, names: list[str], needs: str) -> None:
    with pytest.raises(Refused) as raised:
        targeted(manifest("a"), applied, names)

    assert raised.value.message == f"the targets need another part of the manifest: {needs}"


def test_the_plan_has_no_drift_of_others_unless_the_server_starts_with_it() -> None:
    applied = manifest("a b")
    part = targeted(manifest("a=x b=y"), applied, ["a"])
    state = observed(applied, "b", live={}, unneeded=(("sha256:1", 7),))
    plan = make_plan(part.manifest, state)

    running = plan_targets(part, part.manifest, state, served=True, path=None)
    starting = plan_targets(part, part.manifest, state, served=False, path=None)

    assert [step.subject for step in plan.steps] == ["b", "a", "store"]
    assert [step.subject for step in running.steps] == ["a"]
    assert [step.subject for step in starting.steps] == ["b", "a"]
    assert (plan.complete, running.complete) == (False, True)
    assert (plan.targets, running.targets) == ((), ("a",))


def test_the_remainder_is_what_the_next_full_plan_has() -> None:
    applied, desired = manifest("a b"), manifest("a=x b=y c", routes={"r": "c"})
    part = targeted(desired, applied, ["a"]).manifest

    rest = make_plan(desired, observed(part))

    assert [step.subject for step in rest.steps if step.kind != "server"] == ["b", "c", "routes"]


@pytest.mark.parametrize(
    ("sync", "path", "reason"),
    [
        ({"watch": True}, "/m.yaml", "the server watches /m.yaml"),
        ({"watch": True}, None, ""),
        ({"watch": False}, "/m.yaml", ""),
        (
            {"watch": False, "git": {"url": "https://git.example.org/m.git"}},
            None,
            "the server follows a git repository",
        ),
    ],
)
def test_a_server_that_follows_the_whole_manifest_undoes_targets(
    sync: dict[str, Any], path: str | None, reason: str
) -> None:
    made = manifest("a", sync=sync)

    assert undone_by(made, path).startswith(reason)
    assert bool(undone_by(made, path)) is bool(reason)
    if reason:
        with pytest.raises(Refused, match=reason):
            require_undisturbed(made, path)


def test_a_protected_model_beside_the_targets_is_no_reason_of_a_refusal() -> None:
    tree = {"from": "builtin:b", "protect": True, "rollout": {"strategy": "recreate"}}
    applied = parse_resolved({"mullama": "v1", "models": {"a": {"from": "builtin:a"}, "b": tree}})
    part = targeted(manifest("a=x b=y"), applied, ["a"])
    live = {
        name: LiveModel(name=name, revision=revision(model), state="degraded" if name == "b" else "ready")
        for name, model in applied.models.items()
    }

    whole = make_plan(part.manifest, observed(applied, live=live))
    alone = plan_targets(part, part.manifest, observed(applied, live=live), served=True, path=None)

    assert [("b" in text, "protected" in text) for text in whole.warnings] == [(True, True)]
    assert alone.warnings == ()


def test_a_route_brings_its_peers_and_no_other() -> None:
    peers = {"p": {"url": "http://p:1"}, "q": {"url": "http://q:1"}, "r": {"url": "http://r:1"}}
    routes: dict[str, Any] = {"far": {"to": [{"model": "x", "peer": "p"}], "fallback": ["y@q", "a"]}}
    desired = manifest("a b", peers=peers, routes=routes | {"other": {"to": [{"model": "z", "peer": "r"}]}})
    part = targeted(desired, manifest("a=x"), ["far"])
    assert sources(part.manifest) == "a"
    assert (set(part.manifest.peers), set(part.manifest.routes)) == ({"p", "q"}, {"far"})
    assert part.models == {"a"}


def test_a_model_brings_its_servers_of_tools_and_no_drift_of_others() -> None:
    servers = {"docs": {"url": "https://d/mcp"}, "web": {"from_host": "web"}}
    applied = manifest("a b", mcp={"old": {"from_host": "old"}})
    desired = manifest("a b", mcp=servers)
    desired = desired.model_copy(
        update={"models": {**desired.models, "a": desired.models["a"].model_copy(update={"mcp": ("docs",)})}}
    )
    part = targeted(desired, applied, ["a"])
    assert set(part.manifest.mcp) == {"old", "docs"}
    seen = Observed(
        applied=Applied(generation=1, revision="r", manifest=part.manifest),
        tools={"docs": ObservedTools(pinned={"x": "1"}, listed={})},
    )
    assert "tools" in [step.kind for step in make_plan(part.manifest, seen).steps]
    plan = plan_targets(part, part.manifest, seen, served=True, path=None)
    assert "tools" not in [step.kind for step in plan.steps]
