"""Tools that a server changed, as drift of a plan."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Manifest
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, Observed
from mullama.plan.steps import Action, Cause, Cost, Plan, from_tree, located, to_tree
from mullama.plan.tools import ObservedTools, compare_tools, server_of
from mullama.problems import Location

PINNED = {"read": "sha256:1", "search": "sha256:2"}


def manifest(url: str = "https://h/mcp") -> Manifest:
    models = {"chat": {"from": "builtin:tiny", "mcp": ["docs"]}}
    return Manifest.model_validate({"mullama": "v1", "mcp": {"docs": {"url": url}}, "models": models})


def plan(found: ObservedTools | None, applied: Manifest | None = None) -> Plan:
    was = applied or manifest()
    observed = Observed(
        applied=Applied(generation=1, revision="r", manifest=was), tools={"docs": found} if found else {}
    )
    return make_plan(manifest(), observed)


def steps(found: ObservedTools | None, **options: Manifest) -> list[str]:
    return [step.detail for step in plan(found, **options).steps if step.kind == "tools"]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (PINNED, ""),
        ({**PINNED, "search": "sha256:3"}, "search changed"),
        ({**PINNED, "write": "sha256:3"}, "write is new"),
        ({"read": "sha256:1"}, "search is gone"),
        ({"read": "sha256:9", "a": "x", "b": "x"}, "read changed; a, b are new; search is gone"),
        ({}, "read, search are gone"),
        ({**PINNED, **{f"t{n}": "x" for n in range(9)}}, "t0, t1, t2, t3, t4 and 4 more are new"),
    ],
)
def test_differences_are_named(listed: dict[str, str], expected: str) -> None:
    changes = compare_tools(PINNED, listed)
    assert (str(changes), bool(changes)) == (expected, bool(expected))


def test_a_changed_tool_is_drift_and_no_change_of_the_manifest() -> None:
    made = plan(ObservedTools(pinned=PINNED, listed={"read": "sha256:1", "search": "sha256:3"}))
    (step,) = [step for step in made.steps if step.kind == "tools"]
    assert (step.action, step.cause, step.cost, step.pause) == (Action.REPAIR, Cause.DRIFT, Cost.LIVE, False)
    assert step.detail == "search changed: use them as they are now"
    assert (step.id, server_of(step)) == ("tools/mcp.docs", "docs")
    assert from_tree(to_tree(made)) == made
    place = Location("m.yaml", 3, 7)
    assert [s.place for s in located(made, {"mcp.docs": place}).steps if s.kind == "tools"] == [place]


def test_tools_that_the_lock_file_pins_need_an_update_of_it() -> None:
    found = ObservedTools(pinned=PINNED, listed={}, locked=True)
    assert steps(found) == ["read, search are gone: mullama lock --update pins them"]


def test_a_server_that_is_down_or_new_is_no_drift() -> None:
    assert steps(ObservedTools(pinned=PINNED)) == []
    assert steps(ObservedTools(listed=PINNED)) == []
    assert steps(None) == []
    assert steps(ObservedTools(pinned=PINNED, listed={}), applied=manifest("https://old/mcp")) == []
