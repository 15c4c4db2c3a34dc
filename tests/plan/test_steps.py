"""Plans as values: their JSON form, and the places of their steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.plan.make import make_plan
from mullama.plan.steps import Action, Cause, Cost, FieldChange, Plan, Step, from_tree, located, to_tree
from mullama.problems import Location
from tests.plan.builders import manifest, model, observed

CHANGED = Step(
    subject="qwen3:8b",
    kind="model",
    action=Action.UPDATE,
    cause=Cause.DESIRED,
    cost=Cost.CONTEXT,
    changes=(
        FieldChange(path="context.size", before=None, after=16384, cost=Cost.CONTEXT),
        FieldChange(path="secret", before=None, after=None, cost=Cost.LIVE, sensitive=True),
    ),
    detail="new context, no pause",
    bytes_download=None,
    place=Location("m.yaml", 4, 5),
)
DRIFTED = Step(subject="server", kind="server", action=Action.REPAIR, cause=Cause.DRIFT, cost=Cost.PROCESS)
PLAN = Plan(base="a", desired="b", generation=2, steps=(CHANGED, DRIFTED), warnings=("w",), complete=False)
TREE: dict[str, Any] = {
    "format": "mullama.plan/1",
    "complete": False,
    "base": "a",
    "desired": "b",
    "wish": "b",
    "generation": 2,
    "summary": {
        "add": 0, "update": 1, "replace": 0, "remove": 0, "rename": 0, "repair": 1, "pauses": 0, "bytes_download": 0,
    },
    "steps": [
        {
            "id": "model/qwen3:8b", "kind": "model", "model": "qwen3:8b", "subject": "qwen3:8b", "action": "update",
            "cause": "desired", "cost": "context",
            "changes": [
                {"path": "context.size", "cost": "context", "sensitive": False, "before": None, "after": 16384},
                {"path": "secret", "cost": "live", "sensitive": True},
            ],
            "detail": "new context, no pause", "bytes_download": None, "memory_before": None, "memory_after": None,
            "memory_worst_case": None,
            "pause": False, "destructive": False, "refusal": "", "unusable": [],
            "renamed_from": None,
            "file": "m.yaml", "line": 4, "column": 5,
        }
    ],
    "drift": [
        {
            "id": "server/server", "kind": "server", "model": None, "subject": "server", "action": "repair",
            "cause": "drift", "cost": "process", "changes": [], "detail": "", "bytes_download": 0,
            "memory_before": None, "memory_after": None,
            "memory_worst_case": None, "pause": False, "destructive": False, "refusal": "", "unusable": [],
            "renamed_from": None,
            "file": None, "line": None, "column": None,
        }
    ],
    "warnings": ["w"],
    "beside": [],
    "targets": [],
}  # fmt: skip


def test_the_json_form_is_the_published_one() -> None:
    assert json.dumps(to_tree(PLAN)) == json.dumps(TREE)
    assert from_tree(TREE) == PLAN


def test_a_plan_survives_its_json_form() -> None:
    plan = make_plan(manifest(a=model(gpu={"layers": 2}), c=model()), observed(manifest(a=model(), b=model())))

    again = from_tree(to_tree(plan))

    assert set(again.steps) == set(plan.steps)
    assert (again.base, again.desired, again.generation) == (plan.base, plan.desired, plan.generation)


def test_the_name_of_desired_before_0_2_is_read() -> None:
    step = {**TREE["steps"][0], "cause": "wish"}
    tree = {key: value for key, value in TREE.items() if key != "desired"}
    assert from_tree({**tree, "steps": [step]}) == PLAN


@pytest.mark.parametrize("tree", [None, [], {}, {**TREE, "steps": [{}]}, {**TREE, "generation": "2"}])
def test_another_tree_is_refused(tree: object) -> None:
    with pytest.raises(Invalid, match="plan"):
        from_tree(tree)


def test_a_step_has_the_place_of_its_first_changed_field_that_has_one() -> None:
    places = {
        "models": Location("m.yaml", 1, 1),
        "models.a": Location("m.yaml", 2, 3),
        "models.a.context": Location("m.yaml", 4, 5),
        "server": Location("m.yaml", 9, 1),
    }
    change = FieldChange(path="context.size", before=1, after=2, cost=Cost.CONTEXT)
    rest: dict[str, Any] = {"action": Action.UPDATE, "cause": Cause.DESIRED, "cost": Cost.LIVE}
    plan = Plan(
        base="",
        desired="",
        generation=1,
        steps=(
            Step(subject="a", kind="model", changes=(change,), **rest),
            Step(subject="a", kind="model", **rest),
            Step(subject="b", kind="model", changes=(change,), **rest),
            Step(subject="server", kind="block", changes=(FieldChange(path="server.tls", cost=Cost.LIVE),), **rest),
            CHANGED,
        ),
    )
    found = [step.place.line if step.place else None for step in located(plan, places).steps]
    assert found == [4, 2, None, 9, 4]
