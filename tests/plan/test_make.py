"""Plans from values: what would change, why, at what cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from mullama.manifest.spec import Manifest, Prune
from mullama.manifest.tree import parse_resolved
from mullama.plan.make import changed_on_disk, make_plan
from mullama.plan.observed import KnownFiles, LiveModel, Machine
from mullama.plan.report import change
from mullama.plan.steps import Action, Cause, Cost, Plan, Step, UnusableFile, from_tree, to_tree
from mullama.struct import replace
from tests.plan.builders import BIG, MANIFESTS, SMALL, STORED, manifest, model, observed


def only(plan: Plan) -> Step:
    (step,) = plan.steps
    return step


def test_the_plan_of_what_is_applied_and_loaded_is_empty() -> None:
    desired = manifest(a=model())

    assert make_plan(desired, observed(desired)).empty


def test_a_new_model_is_added_with_its_memory_and_its_bytes() -> None:
    plan = make_plan(manifest(a=model(), b=model()), observed(manifest(a=model(gpu={"layers": 1}))))

    step = plan.steps[-1]
    assert (step.action, step.cause, step.subject) == (Action.ADD, Cause.DESIRED, "b")
    assert step.bytes_download == 0
    assert plan.generation == 4


def deltas(before: Manifest, after: Manifest) -> dict[str, int]:
    """Return the memory that each step adds, in MB of weights (over 800 MB) and contexts (less)."""
    steps = make_plan(after, observed(before)).steps
    return {s.subject: (s.memory_after or 0) - (s.memory_before or 0) for s in steps if s.kind == "model"}


@pytest.mark.parametrize(
    ("before", "after", "weights", "contexts"),
    [
        ({}, {"a": model()}, {"a"}, set()),
        ({}, {"a": model(), "b": model()}, {"a"}, set()),
        ({"a": model()}, {"a": model(), "b": model()}, set(), set()),
        ({"a": model()}, {"a": model(), "b": model(context={"size": 512})}, set(), {"b"}),
        ({"a": model()}, {"a": model(), "b": model(gpu={"layers": 1})}, {"b"}, set()),
        ({"a": model(), "b": model()}, {"a": model()}, set(), set()),
        ({"a": model(), "b": model(context={"size": 512})}, {"b": model(context={"size": 512})}, set(), {"a"}),
        ({"a": model(), "b": model()}, {}, {"a"}, set()),
        ({"a": model()}, {"b": model()}, set(), set()),
    ],
)
def test_what_models_share_counts_once(
    before: dict[str, Any], after: dict[str, Any], weights: set[str], contexts: set[str]
) -> None:
    found = deltas(manifest(**before), manifest(**after))
    assert {name for name, count in found.items() if abs(count) > 8 * 10**8} == weights
    assert {name for name, count in found.items() if 0 < abs(count) <= 8 * 10**8} == contexts


def test_a_new_model_shows_its_set_fields_without_the_defaults() -> None:
    new = model(
        gpu={"layers": 20}, limits={"parallel": 16}, system="Be brief.", dialects=["openai"],
        adapters=[{"from": "/m/x.gguf"}],
    )  # fmt: skip
    changes = only(make_plan(manifest(coder=new), observed())).changes
    assert [(c.path, c.before, c.after) for c in changes] == [
        ("from", None, "/m/a.gguf"),
        ("adapters", None, ["/m/x.gguf"]),
        ("dialects", None, ["openai"]),
        ("gpu.layers", None, 20),
        ("limits.parallel", None, 16),
        ("system", None, "Be brief."),
    ]


@pytest.mark.parametrize(
    ("key", "rights", "further"),
    [
        ({}, {"roles": ["infer"], "models": ["*"]}, {}),
        (
            {"roles": ["admin"], "models": ["a"], "priority": 3},
            {"roles": ["admin"], "models": ["a"]}, {"priority": 3},
        ),
    ],
)  # fmt: skip
def test_a_new_key_shows_its_permissions_and_set_fields(
    key: dict[str, Any], rights: dict[str, Any], further: dict[str, Any]
) -> None:
    keyed = parse_resolved(
        {"mullama": "v1", "auth": {"keys": {"app": {"secret": {"from_env": "X"}, **key}}}, "models": {"a": model()}}
    )
    plain = manifest(a=model())
    added, removed = only(make_plan(keyed, observed(plain))), only(make_plan(plain, observed(keyed)))
    wanted = {"auth.keys.app": rights, **{f"auth.keys.app.{path}": value for path, value in further.items()}}
    assert {c.path: c.after for c in added.changes} == wanted
    assert {c.path: c.before for c in removed.changes} == wanted


def test_a_plan_warns_of_models_that_do_not_fit_together_and_only_where_the_machine_is_the_servers() -> None:
    desired = manifest(
        first=model(), second=model(context={"size": 4096, "pool": "worst_case"}, limits={"parallel": 256})
    )

    (told,) = make_plan(desired, observed(desired, machine=SMALL)).warnings
    assert "first, second" in told
    assert make_plan(desired, observed(desired, machine=BIG)).warnings == ()
    assert make_plan(desired, observed(desired, live=None, machine=SMALL)).warnings == ()


def test_a_plan_warns_of_a_protected_model_that_a_running_server_refuses_to_remove() -> None:
    served, desired = manifest(a=model(protect=True), b=model()), manifest(b=model())

    refused = ("a is protected and would be removed: apply refuses it",)
    assert make_plan(desired, observed(served)).warnings == refused
    assert make_plan(desired, observed(served, live=None)).warnings == ()
    assert make_plan(desired, observed(manifest(a=model(), b=model()))).warnings == ()
    assert make_plan(served, observed(served)).warnings == ()


def test_files_that_are_not_stored_are_downloaded_with_their_size_or_an_unknown_one() -> None:
    world = observed()
    lock = {"/m/a.gguf": replace(STORED, stored=False)}

    known = only(make_plan(manifest(a=model()), replace(world, files=lock)))
    unknown = make_plan(manifest(a=model()), replace(world, files={}))

    assert known.bytes_download == 10**9
    assert known.cost is Cost.FILES
    assert only(unknown).bytes_download is None
    assert not unknown.complete


@pytest.mark.parametrize(
    ("change", "cost", "action"),
    [
        ({"description": "x"}, Cost.NONE, Action.UPDATE),
        ({"system": "Be brief."}, Cost.LIVE, Action.UPDATE),
        ({"parameters": {"temperature": 0.1}}, Cost.LIVE, Action.UPDATE),
        ({"context": {"threads": 3}}, Cost.LIVE, Action.UPDATE),
        ({"residency": {"ttl": "5m"}}, Cost.LIVE, Action.UPDATE),
        ({"limits": {"queue": 3}}, Cost.LIVE, Action.UPDATE),
        ({"limits": {"parallel": 2}}, Cost.CONTEXT, Action.UPDATE),
        ({"context": {"size": 1024}}, Cost.CONTEXT, Action.UPDATE),
        ({"context": {"kv": {"k": "q8_0"}}}, Cost.CONTEXT, Action.UPDATE),
        ({"gpu": {"layers": 3}}, Cost.WEIGHTS, Action.REPLACE),
        ({"memory": {"mlock": True}}, Cost.WEIGHTS, Action.REPLACE),
        ({"from": "/m/b.gguf"}, Cost.FILES, Action.REPLACE),
        ({"system": "x", "gpu": {"layers": 1}}, Cost.WEIGHTS, Action.REPLACE),
    ],
)
def test_a_change_costs_what_its_dearest_field_costs(change: dict[str, Any], cost: Cost, action: Action) -> None:
    step = only(make_plan(manifest(a=model() | change), observed(manifest(a=model()))))

    assert (step.cost, step.action, step.cause) == (cost, action, Cause.DESIRED)
    assert step.changes


def test_the_same_bytes_by_another_address_cost_nothing() -> None:
    world = observed(manifest(a=model()))
    world = replace(world, files={"/m/a.gguf": STORED, "/m/copy.gguf": replace(STORED, source="/m/copy.gguf")})

    step = only(make_plan(manifest(a=model() | {"from": "/m/copy.gguf"}), world))

    assert step.cost is Cost.NONE
    assert step.bytes_download == 0


def test_a_change_pauses_only_where_both_do_not_fit() -> None:
    desired, before = manifest(a=model(gpu={"layers": 1})), manifest(a=model())

    assert not only(make_plan(desired, observed(before, machine=BIG))).pause
    assert only(make_plan(desired, observed(before, machine=SMALL))).pause


STRATEGIES = [
    ("surge", BIG, False, "load next to the old one, no pause"),
    ("surge", SMALL, False, "does not fit twice: apply refuses it, because rollout.strategy is surge"),
    ("recreate", BIG, True, "unload the old one first: pause"),
    ("recreate", SMALL, True, "does not fit twice: pause"),
]


@pytest.mark.parametrize(("strategy", "machine", "pause", "detail"), STRATEGIES)
def test_a_strategy_decides_whether_a_model_pauses(strategy: str, machine: Machine, pause: bool, detail: str) -> None:
    rollout = {"strategy": strategy}
    desired, before = manifest(a=model(gpu={"layers": 1}, rollout=rollout)), manifest(a=model(rollout=rollout))

    step = only(make_plan(desired, observed(before, machine=machine)))

    assert step.pause is pause
    assert step.detail.startswith(detail)
    assert bool(step.refusal) == ("refuses" in detail)


def test_a_model_that_is_gone_from_the_manifest_is_removed_and_its_files_stay() -> None:
    step = only(make_plan(manifest(), observed(manifest(a=model()))))

    assert (step.action, step.destructive, step.memory_after) == (Action.REMOVE, True, 0)
    assert "files kept" in step.detail


def test_a_model_that_is_gone_is_left_to_serve_where_nothing_running_is_pruned() -> None:
    before, after = manifest(a=model(), b=model()), manifest(a=model())
    kept = after.model_copy(update={"prune": Prune(running=False)})

    step = next(s for s in make_plan(kept, observed(before)).steps if s.kind == "model")

    assert (step.subject, step.action, step.cost, step.destructive) == ("b", Action.UPDATE, Cost.NONE, False)
    assert "keeps serving" in step.detail


def test_a_model_that_was_left_to_serve_is_removed_once_what_runs_is_pruned_again() -> None:
    desired = manifest(a=model())
    world = observed(desired)
    assert world.live is not None
    left = replace(world, live={**world.live, "b": LiveModel(name="b", revision="old", state="ready")})

    step = only(make_plan(desired, left))

    assert (step.subject, step.action, step.destructive) == ("b", Action.REMOVE, True)
    kept = make_plan(desired.model_copy(update={"prune": Prune(running=False)}), left)
    assert [s for s in kept.steps if s.kind == "model"] == []


def test_a_moved_model_keeps_its_weights_and_its_history() -> None:
    desired = parse_resolved({"mullama": "v1", "models": {"b": model()}, "moved": [{"from": "a", "to": "b"}]})

    plan = make_plan(desired, observed(manifest(a=model())))

    steps = {step.subject: step for step in plan.steps}
    assert set(steps) == {"b", "moved"}
    assert (steps["b"].action, steps["b"].renamed_from, steps["b"].cost) == (Action.RENAME, "a", Cost.LIVE)


@pytest.mark.parametrize(
    ("state", "says"),
    [("idle", "unloaded since"), ("failed", "load again"), ("degraded", "load again"), ("ready", None)],
)
def test_a_world_that_differs_from_what_was_applied_is_drift(state: str, says: str | None) -> None:
    desired = manifest(a=model())

    plan = make_plan(desired, observed(desired, live=state))

    if says is None:
        assert plan.empty
    else:
        assert (only(plan).cause, only(plan).action) == (Cause.DRIFT, Action.REPAIR)
        assert says in only(plan).detail


@pytest.mark.parametrize(
    ("reason", "digest", "says"),
    [
        ("TransferFailed", STORED.digest, "its files are right again: load them"),
        ("NotFound", None, "its files are right again: load them"),
        ("TransferFailed", "sha256:" + "0" * 64, "the last attempt failed (it changed): load again"),
        ("BadWeights", None, "the last attempt failed (it changed): load again"),
    ],
)
def test_drift_after_a_failed_load_does_not_repeat_the_fault_of_files_that_were_restored(
    reason: str, digest: str | None, says: str
) -> None:
    desired = manifest(a=model(**({"digest": digest} if digest else {})))
    world = observed(desired, live="failed")
    assert world.live is not None
    failed = replace(world.live["a"], reason=reason, message="it changed")

    assert only(make_plan(desired, replace(world, live={"a": failed}))).detail == says


def test_an_adapter_of_this_machine_that_is_gone_has_its_reason_in_the_drift() -> None:
    desired = manifest(a=model(adapters=[{"from": "/m/x.gguf"}]))
    gone = KnownFiles(source="/m/x.gguf", size=0, unusable=UnusableFile(reason="/m/x.gguf does not exist"))
    world = observed(desired)
    assert world.live is not None
    live = {"a": replace(world.live["a"], changed={"/m/x.gguf": ""})}

    step = only(make_plan(desired, replace(world, live=live, files={**world.files, "/m/x.gguf": gone})))

    assert (step.detail, step.bytes_download) == ("/m/x.gguf does not exist: restore it", 0)


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ({"/a": "1"}, "/a changed on disk"),
        ({"/a": ""}, "/a does not exist"),
        ({"/a": "1", "/b": "2"}, "/a and 1 more changed on disk"),
        ({"/a": "", "/b": "", "/c": ""}, "/a and 2 more do not exist"),
        ({"/a": "1", "/b": ""}, "/b does not exist, and /a changed on disk"),
    ],
)
def test_a_file_that_is_gone_is_not_a_changed_one(states: dict[str, str], says: str) -> None:
    assert changed_on_disk(states) == says


def test_a_file_of_this_machine_that_is_gone_is_not_downloaded() -> None:
    hub, path = "hf:org/m:m.gguf", "/m/a.gguf"
    desired = manifest(h=model(**{"from": hub}), p=model(**{"from": path}))
    junk = replace(STORED, stored=False, size=0, unusable=UnusableFile(reason="/m/a.gguf is damaged"))
    gone = {hub: replace(STORED, stored=False), path: junk}

    steps = {step.subject: step for step in make_plan(desired, replace(observed(desired), files=gone)).steps}

    assert (steps["h"].detail, steps["h"].bytes_download) == ("files are gone: pull", 10**9)
    assert (steps["p"].detail, steps["p"].bytes_download) == ("/m/a.gguf is damaged: restore it", 0)


@pytest.mark.parametrize(("digest", "drifts"), [("a", False), ("b", True)])
def test_a_source_that_has_other_weights_than_are_served_is_drift(digest: str, drifts: bool) -> None:
    desired = manifest(a=model(residency={"load": "on_demand"}))
    world = observed(desired, live="idle")
    assert world.live is not None
    served = replace(world.live["a"], digest="sha256:" + digest * 64)

    steps = make_plan(desired, replace(world, live={"a": served})).steps

    assert [(s.action, s.cause, s.cost) for s in steps] == drifts * [(Action.REPAIR, Cause.DRIFT, Cost.FILES)]


def test_an_idle_model_on_demand_is_no_drift() -> None:
    desired = manifest(a=model(residency={"load": "on_demand"}))

    assert make_plan(desired, observed(desired, live="idle")).empty


def test_a_server_that_does_not_run_is_one_step_of_drift() -> None:
    desired = manifest(a=model(), b=model())

    step = only(make_plan(desired, observed(desired, live=None)))

    assert (step.subject, step.cause, step.cost) == ("server", Cause.DRIFT, Cost.PROCESS)


def test_a_route_is_a_live_change_of_its_block() -> None:
    before = manifest(a=model())
    desired = parse_resolved({"mullama": "v1", "models": {"a": model()}, "routes": {"default": "a"}})

    step = only(make_plan(desired, observed(before)))

    assert (step.kind, step.subject, step.cost) == ("block", "routes", Cost.LIVE)


def test_a_secret_reference_shows_neither_side() -> None:
    def with_key(variable: str) -> Manifest:
        keys = {"ci": {"secret": {"from_env": variable}}}
        return parse_resolved({"mullama": "v1", "auth": {"keys": keys}, "models": {"a": model()}})

    tree = to_tree(make_plan(with_key("NEW_VAR"), observed(with_key("OLD_VAR"))))

    (change,) = tree["steps"][0]["changes"]
    assert change["sensitive"]
    assert "before" not in change
    assert "after" not in change


@given(before=MANIFESTS, after=MANIFESTS)
def test_a_plan_is_empty_exactly_when_nothing_differs(before: Manifest, after: Manifest) -> None:
    world = observed(before)
    world = replace(world, files={"/m/a.gguf": STORED, "/m/b.gguf": replace(STORED, digest="sha256:" + "b" * 64)})

    plan = make_plan(after, world)

    assert plan.empty == (before == after)
    named = {step.subject for step in plan.steps if step.kind == "model"}
    changed = {name for name in {*before.models, *after.models} if before.models.get(name) != after.models.get(name)}
    assert named == changed


def test_a_plan_shows_the_pool_and_the_worst_case() -> None:
    desired = manifest(a=model(context={"size": 4096, "pool": 4096}))

    added = only(make_plan(desired, observed()))
    changed = only(make_plan(desired, observed(manifest(a=model(context={"size": 4096, "pool": "worst_case"})))))

    assert added.detail.startswith("load at start, pool of 4096 of 16384 tokens (")
    assert changed.detail.startswith("new context, no pause, pool of 4096 of 16384 tokens (")
    assert changed.cost is Cost.CONTEXT
    assert changed.memory_after is not None
    assert changed.memory_after < (changed.memory_worst_case or 0) == changed.memory_before
    plain = only(make_plan(manifest(a=model(context={"pool": "worst_case"})), observed()))
    assert (plain.memory_worst_case, "pool" in plain.detail) == (None, False)


def test_what_requests_used_decides_an_automatic_pool() -> None:
    desired = manifest(a=model(context={"size": 4096, "pool": "auto"}))
    world = observed()
    busy = replace(world, files={"/m/a.gguf": replace(STORED, used=8000)})

    assert "pool of 4096 of" in only(make_plan(desired, world)).detail
    assert "pool of 10240 of" in only(make_plan(desired, busy)).detail


def test_a_moved_route_or_key_is_a_rename_with_its_other_changes() -> None:
    def named(route: str, key: str, target: str = "a", **rest: Any) -> Manifest:
        keys = {key: {"secret": {"from_env": "K"}, "priority": rest.pop("priority", 0)}}
        return parse_resolved(
            {"mullama": "v1", "models": {"a": model()}, "routes": {route: target}, "auth": {"keys": keys}, **rest}
        )

    moved = [{"kind": "route", "from": "talk", "to": "chat"}, {"kind": "key", "from": "ci", "to": "build"}]
    before = named("talk", "ci")
    renamed = make_plan(named("chat", "build", moved=moved, priority=5), observed(before))
    steps = {step.subject: step for step in renamed.steps}
    unnamed = {step.subject: step for step in make_plan(named("chat", "build"), observed(before)).steps}
    settled = make_plan(named("chat", "build", moved=moved), observed(named("chat", "build", moved=moved)))

    assert [change(item) for item in steps["routes"].changes] == ["routes.chat was talk"]
    assert [change(item) for item in steps["auth"].changes] == ["key build was ci", "auth.keys.build.priority 0 -> 5"]
    assert {step.cost for step in (steps["routes"], steps["auth"])} == {Cost.LIVE}
    assert len(unnamed["routes"].changes) == 2
    assert settled.empty
    again = {step.subject: step for step in from_tree(to_tree(renamed)).steps}
    assert again["routes"] == steps["routes"]


def test_a_file_that_does_not_exist_is_in_the_step_and_is_no_download() -> None:
    reason = UnusableFile(reason="/m/b.gguf does not exist", missing=True)
    gone = KnownFiles(source="/m/b.gguf", size=0, unusable=reason)
    lost = replace(reason, path="from")
    state = replace(observed(manifest(a=model())), files={"/m/a.gguf": STORED, "/m/b.gguf": gone})

    added = make_plan(manifest(a=model(), b=model(**{"from": "/m/b.gguf"})), state)
    changed = only(make_plan(manifest(a=model(**{"from": "/m/b.gguf"})), state))
    drifted = only(make_plan(manifest(a=model()), replace(state, files={"/m/a.gguf": gone})))

    assert (only(added).unusable, only(added).detail) == ((lost,), "/m/b.gguf does not exist")
    assert (only(added).bytes_download, added.complete) == (0, True)
    assert (changed.unusable, changed.detail) == (
        (lost,), "load next to the old one, no pause; /m/b.gguf does not exist"
    )  # fmt: skip
    assert (drifted.unusable, drifted.detail) == ((), "/m/b.gguf does not exist: restore it")


def test_only_what_can_be_fetched_is_pulled() -> None:
    junk = KnownFiles(source="/m/b.gguf", size=0, unusable=UnusableFile(reason="/m/b.gguf is damaged"))
    hub = "hf:org/p:mmproj.gguf"
    stored = {"/m/a.gguf": STORED, "/m/b.gguf": junk, hub: KnownFiles(source=hub, size=7)}
    before = manifest(a=model(mmproj=hub))
    lost = only(make_plan(before, replace(observed(before), files=stored)))
    both = only(make_plan(manifest(b=model(**{"from": "/m/b.gguf"}, mmproj=hub)), replace(observed(), files=stored)))

    assert (lost.detail, lost.bytes_download) == ("files are gone: pull", 7)
    assert (both.detail, both.bytes_download) == ("/m/b.gguf is damaged", 7)
