"""A plan, an apply and the revisions as lines."""

from __future__ import annotations

from typing import Any

from mullama.cli.console.progress import ApplyProgress, fold
from mullama.cli.page.plan_lines import plan_lines, progress_lines, question, revision_rows
from mullama.plan.steps import Action, Cause, Cost, FieldChange, Plan, Step
from mullama.struct import replace
from tests.cli.manifest.test_apply import CHANGED, REMOVED, plan
from tests.cli.page.scripted import GIB

BEFORE = ApplyProgress()


def folded(*events: dict[str, Any]) -> ApplyProgress:
    progress = BEFORE
    for event in events:
        progress = fold(progress, event)
    return progress


def texts(progress: ApplyProgress, **speeds: float) -> list[str]:
    return [line.text for line in progress_lines(progress, {("chat", name): v for name, v in speeds.items()})]


def test_a_wide_page_shows_the_plan_as_the_commands_print_it() -> None:
    from mullama.plan import report

    shown = plan_lines(plan(CHANGED), 200)
    assert [line.text for line in shown] == [line.text for line in report.lines(plan(CHANGED))]
    assert shown[0].tone == "warning"
    assert shown[-1].tone == "plain"


def test_a_narrow_page_shows_each_change_on_its_own_line() -> None:
    step = replace(
        CHANGED, changes=(FieldChange(path="context.size", cost=Cost.CONTEXT, before=8192, after=16384),),
        detail="new context, no pause",
    )  # fmt: skip
    assert [line.text for line in plan_lines(plan(step), 30)] == [
        "~ chat live", "    context.size 8192 -> 16384", "    new context, no pause", "1 changed.",
    ]  # fmt: skip


def test_drift_is_marked_as_such_on_a_narrow_page() -> None:
    step = replace(CHANGED, cause=Cause.DRIFT, action=Action.REPAIR, detail="the file was changed since then")
    assert plan_lines(plan(step), 20)[0].text == "! chat drift"


def test_the_question_names_removals_and_pauses() -> None:
    paused = replace(CHANGED, pause=True)
    assert question(plan(REMOVED, paused), removes_all=False) == (
        "1 changed (1 with a pause), 1 removed. Removed: old. Requests wait for chat."
    )
    assert "every model is removed" in question(plan(REMOVED), removes_all=True)


def test_an_apply_shows_files_with_bytes_and_time_left_then_models_then_the_result() -> None:
    events: list[dict[str, Any]] = [
        {"event": "phase", "phase": "fetch"},
        {"event": "fetch", "model": "chat", "file": "a.gguf", "done": GIB, "total": 4 * GIB},
    ]
    assert texts(folded(*events), **{"a.gguf": GIB / 10}) == [
        "fetching files …",
        "↓ chat: a.gguf",
        "  ████░░░░░░░░░░░░ 25 %, 1 GiB of 4 GiB, 102 MiB/s, 30 s left",
    ]
    events += [
        {"event": "fetch", "model": "chat", "file": "a.gguf", "done": 4 * GIB, "total": 4 * GIB},
        {"event": "step", "model": "chat", "state": "failed", "message": "no \x1b[31mmemory"},
        {"event": "warning", "message": "slow disk"},
    ]
    assert texts(folded(*events))[1:] == [
        "● chat: a.gguf 100 %, 4 GiB of 4 GiB", "✗ chat failed: no \\x1b[31mmemory", "warning: slow disk",
    ]  # fmt: skip
    result = {
        "event": "result",
        "outcome": "partly_applied",
        "generation": 4,
        "message": "revision 4 is partly applied",
    }
    result["models"] = {"chat": {"ok": False, "message": "no memory"}}
    assert texts(folded(*events, result))[-2:] == ["chat: no memory", "✗ revision 4 is partly applied"]


def test_an_apply_that_has_not_begun_says_so() -> None:
    assert texts(BEFORE) == ["sending the manifest …"]


def test_an_undo_can_go_to_every_revision_but_the_applied_one() -> None:
    def revision(number: int, **fields: Any) -> dict[str, Any]:
        origin = {"path": "/m.yaml", "commit": fields.pop("commit", None)}
        return {"generation": number, "when": 1e9, "by": "ann", "trigger": "apply", "origin": origin, **fields}

    found = [revision(3), revision(2, summary={"subjects": {"add": ["a", "b"]}}), revision(1, commit="abcdef0123")]
    rows = revision_rows(found, 3)
    assert [number for number, _ in rows] == ["2", "1"]
    assert rows[0][1][-1].text == "add a, b"
    assert rows[1][1][2].text == "ann abcdef01"


def test_nothing_to_do_is_one_line() -> None:
    empty: Plan = plan()
    assert [line.text for line in plan_lines(empty, 40)] == ["Nothing to do."]
    assert isinstance(CHANGED, Step)
