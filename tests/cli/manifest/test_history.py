"""`history` names the changes of each revision, `undo` shows its plan before it asks, `reload` exits by the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mullama.cli.api_client.discover import user
from mullama.plan.steps import Action, Cause, Cost, Plan, Step, to_tree
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]
REMOVED = Step(
    subject="chat", kind="model", action=Action.REMOVE, cause=Cause.DESIRED, cost=Cost.WEIGHTS, detail="unload"
)
RESULT = {"event": "result", "outcome": "applied", "message": "revision 3 is applied", "generation": 3, "models": {}}


def plan(*steps: Step) -> dict[str, Any]:
    return to_tree(Plan(base="a", desired="b", generation=3, steps=steps))


@pytest.fixture
def undo(run: Run, tiny: TinyServer) -> Callable[..., Ran]:
    tiny.answers["GET /api/v1/undo"] = Answer(plan(REMOVED))
    tiny.answers["POST /api/v1/undo"] = Answer(RESULT)
    return lambda *arguments, **more: run("undo", "--host", str(tiny.address), *arguments, **more)


def test_undo_shows_its_plan_and_asks(undo: Callable[..., Ran], tiny: TinyServer) -> None:
    ran = undo(stdin="n\n", tty=True)

    assert ran.code == 9
    assert "- chat" in ran.out
    assert ran.out.index("- chat") < (ran.out + ran.err).index("Go back to the previous revision?")


def test_undo_with_yes_shows_its_plan_and_applies(undo: Callable[..., Ran], tiny: TinyServer) -> None:
    ran = undo("--yes")

    assert tiny.asked[-1].body == {"to": None, "by": user()}
    assert tiny.asked[-1].headers["If-Match"] == '"a"', "another revision than that of the plan refuses it"

    assert ran.code == 0
    assert "- chat" in ran.out
    assert "revision 3 is applied" in ran.out


def test_a_revision_that_is_not_kept_is_refused_before_the_question(run: Run, tiny: TinyServer) -> None:
    error = {"kind": "not_found", "message": "revision 77 is not kept", "hint": "stored revisions: 2, 1"}
    tiny.answers["GET /api/v1/undo?to=77"] = Answer({"error": error}, status=404)

    ran = run("undo", "--host", str(tiny.address), "--to", "77", stdin="y\n", tty=True)

    assert ran.code == 3
    assert (ran.out, "Go back" in ran.err) == ("", False)
    assert "revision 77 is not kept" in ran.err


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        ({"add": 2, "update": 1, "subjects": {"add": ["a", "b"], "update": ["routes"]}}, "add a, b; update routes"),
        ({"add": 2, "update": 0}, "2 add"),
        ({"subjects": {}}, "-"),
    ],
)
def test_history_names_the_models(run: Run, tiny: TinyServer, summary: dict[str, Any], text: str) -> None:
    kept = {"generation": 2, "when": 0, "by": "me", "trigger": "apply", "result": "revision 2 is applied"}
    tiny.answers["GET /api/v1/history"] = Answer({"generations": [{**kept, "summary": summary}]})

    row = run("history", "--host", str(tiny.address)).out.splitlines()[1]

    assert row.split("apply")[1].split() == ["applied", *text.split()]


def test_two_revisions_are_compared_by_their_steps(run: Run, tiny: TinyServer) -> None:
    plan = {
        "base": "a", "generation": 5, "steps": [], "drift": [], "warnings": ["a warning"], "complete": True,
    }  # fmt: skip
    answer = {"before": 3, "after": 5, "texts": ["", ""], "plan": plan}
    tiny.answers["GET /api/v1/history/diff?before=3&after=5"] = Answer(answer)

    shown = run("history", "--host", str(tiny.address), "--diff", "3", "5")
    whole = run("history", "--host", str(tiny.address), "--diff", "3", "5", "--json")

    assert "a warning" in shown.out
    assert json.loads(whole.out) == answer


@pytest.mark.parametrize(
    ("outcome", "code"), [("applied", 0), ("waiting", 0), ("partly_applied", 8), ("refused", 9), ("not_found", 3)]
)
@pytest.mark.parametrize("option", [(), ("--json",)])
def test_reload_exits_by_its_outcome(run: Run, tiny: TinyServer, outcome: str, code: int, option: tuple[str]) -> None:
    tiny.answers["POST /api/v1/reload"] = Answer({"changed": False, "outcome": outcome, "message": "the reason"})

    ran = run("reload", "--host", str(tiny.address), *option)

    assert ran.code == code
    assert "the reason" in (ran.err if code and not option else ran.out)
