"""The checks before a change, by values alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from mullama.controller.runs.change import check_options, check_protected, failure_line
from mullama.errors import Conflict, MullamaError, Refused
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.steps import Action, Cause, Cost, Plan, Step
from mullama.runtime.base import ApplyOptions


def manifest(**models: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {n: {"from": "/m/a.gguf", **m} for n, m in models.items()}})


def made(*steps: Step, base: str = "now") -> Plan:
    return Plan(base=base, desired="then", generation=2, steps=steps)


def step(action: Action, *, pause: bool = False) -> Step:
    return Step(subject="a", kind="model", action=action, cause=Cause.DESIRED, cost=Cost.WEIGHTS, pause=pause)


GUARDED = manifest(a={"protect": True})
ONE = manifest(a={})


@pytest.mark.parametrize(
    ("applied", "desired", "plan", "options", "ours", "error"),
    [
        (ONE, ONE, made(step(Action.UPDATE)), ApplyOptions(expect="now"), False, None),
        (ONE, ONE, made(step(Action.UPDATE)), ApplyOptions(expect="before"), False, Conflict),
        (ONE, ONE, made(step(Action.UPDATE)), ApplyOptions(expect="before"), True, None),
        (ONE, ONE, made(), ApplyOptions(expect="before"), False, None),
        (ONE, manifest(), made(), ApplyOptions(), False, Refused),
        (ONE, manifest(a={"scale": {"max": 2}}), made(), ApplyOptions(), False, Refused),
        (ONE, manifest(), made(), ApplyOptions(allow_empty=True), False, None),
        (manifest(), manifest(), made(), ApplyOptions(), False, None),
    ],
)
def test_a_stale_plan_and_an_empty_manifest_need_their_option(
    applied: Manifest,
    desired: Manifest,
    plan: Plan,
    options: ApplyOptions,
    ours: bool,
    error: type[MullamaError] | None,
) -> None:
    with pytest.raises(error) if error else nullcontext():
        check_options(plan, desired, options, applied=applied, moved_by_same_change=ours)


@pytest.mark.parametrize(
    ("served", "plan", "refused"),
    [
        (ONE, made(step(Action.REMOVE)), ""),
        (GUARDED, made(step(Action.REMOVE)), "a is protected and would be removed"),
        (GUARDED, made(step(Action.REPLACE, pause=True)), "a is protected and would be paused"),
        (GUARDED, made(step(Action.REPLACE)), ""),
    ],
)
def test_a_protected_model_is_not_removed_or_paused(served: Manifest, plan: Plan, refused: str) -> None:
    with pytest.raises(Refused, match=refused) if refused else nullcontext():
        check_protected(plan, served.models)


def test_a_failure_line_has_the_outcome_the_message_and_the_hint() -> None:
    class Snapshot:
        generation, revision = 7, "r"

    line = failure_line(Conflict("taken", hint="wait"), Snapshot())  # type: ignore[arg-type]

    assert (line["outcome"], line["message"], line["hint"]) == ("conflict", "taken (wait)", "wait")
    assert (line["generation"], line["models"], line["problems"]) == (7, {}, [])
