"""What may end a change before anything is changed: by values alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.controller.change import Change, PendingChanges, PlannedChange, failure_line, guard
from mullama.errors import Conflict, MullamaError, Refused
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import Observed
from mullama.plan.steps import Action, Cause, Cost, Plan, Step
from mullama.runtime.base import Access, ApplyOptions, Origin


def manifest(**models: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {n: {"from": "/m/a.gguf", **m} for n, m in models.items()}})


def draft(desired: Manifest, *steps: Step, base: str = "now") -> PlannedChange:
    plan = Plan(base=base, desired="then", generation=2, steps=steps)
    return PlannedChange(
        manifest=desired, overlay={}, desired=desired, origin=Origin(), observed=Observed(), plan=plan,
        access=Access(generation=1, manifest=desired, keys=()), lock={}, lacks=frozenset(),
    )  # fmt: skip


def step(action: Action, *, pause: bool = False) -> Step:
    return Step(subject="a", kind="model", action=action, cause=Cause.DESIRED, cost=Cost.WEIGHTS, pause=pause)


def change(number: int, wanted: Manifest | None) -> Change:
    return Change(
        number=number, wanted=wanted, origin=Origin(), options=ApplyOptions(), tell=lambda line: None,
        edit=lambda overlay: overlay, doing=f"change {number}",
    )  # fmt: skip


GUARDED = manifest(a={"protect": True})
ONE = manifest(a={})


@pytest.mark.parametrize(
    ("desired", "made", "options", "ours", "error"),
    [
        (ONE, draft(ONE, step(Action.UPDATE)), ApplyOptions(expect="now"), False, None),
        (ONE, draft(ONE, step(Action.UPDATE)), ApplyOptions(expect="before"), False, Conflict),
        (ONE, draft(ONE, step(Action.UPDATE)), ApplyOptions(expect="before"), True, None),
        (ONE, draft(ONE), ApplyOptions(expect="before"), False, None),
        (ONE, draft(manifest()), ApplyOptions(), False, Refused),
        (ONE, draft(manifest()), ApplyOptions(allow_empty=True), False, None),
        (manifest(), draft(manifest()), ApplyOptions(), False, None),
        (ONE, draft(manifest(b={}), step(Action.REMOVE)), ApplyOptions(), False, None),
        (GUARDED, draft(manifest(b={}), step(Action.REMOVE)), ApplyOptions(), False, Refused),
        (GUARDED, draft(GUARDED, step(Action.REPLACE, pause=True)), ApplyOptions(), False, Refused),
        (GUARDED, draft(GUARDED, step(Action.REPLACE)), ApplyOptions(), False, None),
    ],
)
def test_a_stale_plan_an_empty_wish_and_protected_models_are_guarded(
    desired: Manifest, made: PlannedChange, options: ApplyOptions, ours: bool, error: type[MullamaError] | None
) -> None:
    def check() -> None:
        guard(made, options, before=desired, served=desired.models, ours=ours)

    if error is None:
        check()
    else:
        with pytest.raises(error):
            check()


def test_a_model_that_was_left_to_serve_is_still_protected() -> None:
    with pytest.raises(Refused, match="a is protected and would be removed"):
        guard(
            draft(manifest(b={}), step(Action.REMOVE)), ApplyOptions(), before=manifest(b={}), served=GUARDED.models,
            ours=False,
        )  # fmt: skip


def test_a_newer_manifest_ends_the_waiting_of_an_older_one_for_another_wish() -> None:
    async def test() -> None:
        waiting, older = PendingChanges(), change(1, manifest(a={}))
        never = asyncio.create_task(asyncio.sleep(3600))
        waits = asyncio.create_task(waiting.wait(older, never))
        await asyncio.sleep(0)
        assert waiting.manifests() == {older.revision}

        waiting.accept(change(2, None))  # an edit of the overlay is no manifest
        waiting.accept(change(3, manifest(a={})))  # the same wish again
        await asyncio.sleep(0)
        assert not waits.done()
        waiting.accept(change(4, manifest(b={})))

        with pytest.raises(Conflict, match="a newer manifest \\(change 4\\)"):
            await waits
        assert older.superseded
        assert not waiting.any()

    asyncio.run(test())


def test_a_failure_line_holds_what_a_command_exits_with_and_shows() -> None:
    class Snapshot:
        generation, revision = 7, "r"

    line = failure_line(Conflict("taken", hint="wait"), Snapshot())  # type: ignore[arg-type]

    assert (line["exit"], line["kind"], line["message"], line["hint"]) == (10, "conflict", "taken (wait)", "wait")
    assert (line["generation"], line["models"], line["problems"]) == (7, {}, [])
