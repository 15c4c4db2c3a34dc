"""The steps of a plan become the changes of hosts."""

from __future__ import annotations

from mullama.manifest.spec import Manifest
from mullama.plan.observed import Machine
from mullama.plan.place import FleetPlacement
from mullama.targets.fleet.observe import FleetObservation, HostObservation
from mullama.targets.fleet.plan import FleetDraft, FleetPlan, FleetStep, tree_for
from mullama.targets.fleet.stages import fetch_groups, stages_of


def manifest(*models: str) -> Manifest:
    return Manifest.model_validate({"mullama": "v1", "models": {name: {"from": "builtin:tiny"} for name in models}})


def test_each_step_is_a_stage_with_the_manifest_of_each_host() -> None:
    seen = FleetObservation(
        hosts={
            name: HostObservation(name=name, version="0.2.0", revision="r", applied=manifest(), machine=Machine())
            for name in "ab"
        }
    )
    steps = (
        FleetStep(kind="change", manifests={"a": manifest("m")}, models={"a": ("m",)}, canary=True, pause="manual"),
        FleetStep(kind="change", manifests={"b": manifest("m")}, models={"b": ("m",)}),
        FleetStep(kind="remove", manifests={"a": manifest(), "b": manifest()}, models={"a": (), "b": ()}),
    )
    ends = {"a": manifest(), "b": manifest()}
    draft = FleetDraft(seen=seen, placement=FleetPlacement(), manifests=ends, steps=steps)
    trees = {name: tree_for(end, "0.2.0", "0.2.0") for name, end in ends.items()}

    stages = stages_of(FleetPlan(draft=draft, trees=trees), fleet="prod", fence=7, by="ann", version="0.2.0")

    assert [(stage.title, list(stage.steps), stage.pause) for stage in stages] == [
        ("canary: change the models", ["a"], "manual"),
        ("change the models", ["b"], 0.0),
        ("remove what is elsewhere", ["a", "b"], 0.0),
    ]
    assert [dict(stage.models) for stage in stages] == [{"a": ("m",)}, {"b": ("m",)}, {}]
    step = stages[0].steps["a"]
    assert step.manifest is not None
    assert (list(step.manifest["models"]), step.mark, step.fence, step.by) == (["m"], "prod/7.1", 7, "ann")
    assert stages[2].steps["a"].manifest is trees["a"]  # a large manifest takes long to write


def test_a_locked_apply_fetches_on_all_hosts_before_the_first_change() -> None:
    seen = FleetObservation(
        hosts={
            name: HostObservation(name=name, version="0.2.0", revision="r", applied=manifest(), machine=Machine())
            for name in "ab"
        }
    )
    ends = {"a": manifest("m"), "b": manifest("m")}
    steps = tuple(FleetStep(kind="change", manifests={name: ends[name]}, models={name: ("m",)}) for name in "ab")
    draft = FleetDraft(seen=seen, placement=FleetPlacement(), manifests=ends, steps=steps)

    stages = stages_of(FleetPlan(draft=draft), fleet="prod", fence=7, by="ann", version="0.2.0", locked=True)

    assert [(stage.title, list(stage.steps)) for stage in stages] == [
        ("fetch and check the files", ["a", "b"]),
        ("change the models", ["a"]),
        ("change the models", ["b"]),
    ]
    assert [step.prepare for stage in stages for step in stage.steps.values()] == [True, True, False, False]
    assert all(step.locked for stage in stages for step in stage.steps.values())


def test_hosts_that_share_files_do_not_fetch_one_source_at_the_same_time() -> None:
    missing = {"a": {"x"}, "b": {"x", "y"}, "c": {"z"}, "d": {"y"}, "e": set[str]()}
    assert fetch_groups(missing, share=False) == [["a", "b", "c", "d", "e"]]
    assert fetch_groups(missing, share=True) == [["a", "c", "d", "e"], ["b"]]
    assert fetch_groups({}, share=True) == []


def test_a_model_that_a_later_step_removes_may_fail_before_it() -> None:
    seen = FleetObservation(
        hosts={"a": HostObservation(name="a", version="0.2.0", revision="r", applied=manifest("x"), machine=Machine())}
    )
    both = {"a": manifest("x", "y")}
    steps = (
        FleetStep(kind="change", manifests=both, models={"a": ("x", "y")}),
        FleetStep(kind="change", manifests=both, models={"a": ("x", "y")}, early=True),
    )
    draft = FleetDraft(seen=seen, placement=FleetPlacement(), manifests={"a": manifest("y")}, steps=steps)
    stages = stages_of(FleetPlan(draft=draft), fleet="prod", fence=7, by="ann", version="0.2.0")
    assert [dict(stage.leaving) for stage in stages] == [{"a": ["x"]}, {}]
