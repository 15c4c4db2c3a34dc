"""The reference names every condition, every reason and every endpoint of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.controller.conditions import EXPLANATIONS, Condition, Conditions, Reason, condition
from mullama.controller.event_log import EventLog
from mullama.controller.status import StatusTracker
from mullama.errors import NotFound
from mullama.reconcile.execute import Outcome, Result
from mullama.runtime.base import Origin
from mullama.runtime.metrics import Metrics
from mullama.server.operator_api.schema import SCHEMAS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_condition_and_reason_has_a_line_in_the_reference_and_none_is_invented() -> None:
    page = (DOCS / "reference/conditions.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}

    assert rows == {*map(str, Condition), *map(str, Reason)}


def test_a_condition_that_is_not_as_it_should_be_has_the_remedy_of_its_reason() -> None:
    found = condition(Condition.SYNCED, False, Reason.HELD, "would unload 3 of 4")
    assert found["hint"].startswith("Check `mullama diff`, then confirm")
    assert condition(Condition.RECONCILING, False, Reason.IDLE)["hint"] == ""
    assert EXPLANATIONS.keys() == {reason.value for reason in Reason}


def test_every_reason_is_used() -> None:
    sources = "".join(path.read_text() for path in (DOCS.parent / "mullama/controller").rglob("*.py"))

    assert [reason.name for reason in Reason if f"Reason.{reason.name}" not in sources] == []


def test_every_endpoint_of_the_operator_is_in_the_reference() -> None:
    page = (DOCS / "reference/http.md").read_text()

    named = [f"{method} {path.replace(':path', '')}" for method, path in SCHEMAS]
    assert [endpoint for endpoint in named if f"`{endpoint}`" not in page] == []


def test_a_condition_keeps_its_moment_while_only_its_message_changes() -> None:
    conditions = Conditions()
    assert conditions.set(Condition.SYNCED, False, Reason.HELD, "one")
    since = conditions.items[Condition.SYNCED]["since"]

    assert conditions.set(Condition.SYNCED, False, Reason.HELD, "two")
    assert not conditions.set(Condition.SYNCED, False, Reason.HELD, "two")
    assert conditions.items[Condition.SYNCED]["since"] == since


@pytest.mark.parametrize(("checkout", "command"), [(None, "mullama apply"), ("/git/m.yaml", "mullama reload")])
def test_a_held_change_names_the_command_that_confirms_it(checkout: str | None, command: str) -> None:
    status = StatusTracker(EventLog(), Metrics())
    status.held(3, 4, Origin(path="/srv/mullama.yaml", checkout=checkout))
    expected = f"would unload 3 of 4; run `{command}` to confirm"
    assert status.conditions.items[Condition.SYNCED]["message"] == expected


def test_a_run_names_the_models_that_an_earlier_run_could_not_change() -> None:
    status = StatusTracker(EventLog(), Metrics())
    failed = Result(
        outcome=Outcome.PARTLY_APPLIED, message="revision 1 is applied, except a", generation=1, revision="r",
        failures={"a": NotFound("gone")}, touched=("a",),
    )  # fmt: skip
    status.applied(failed, {"a", "b"})
    assert status.conditions.items[Condition.SYNCED]["message"] == "revision 1 is applied, except a"

    status.applied(
        Result(outcome=Outcome.APPLIED, message="revision 2 is applied", generation=2, revision="s", touched=("b",)),
        {"a", "b"},
    )

    synced = status.conditions.items[Condition.SYNCED]
    assert (synced["status"], synced["message"]) == (False, "revision 2 is applied; earlier failures: a")


@pytest.mark.parametrize(("phase", "reason"), [("fetch", "Pulling"), ("load", "Applying")])
def test_a_run_that_outlasts_another_keeps_its_reason(phase: str, reason: str) -> None:
    status = StatusTracker(EventLog(), Metrics())
    for label in ("long", "short"):
        status.begun(label)
        status.progressed({"event": "phase", "phase": phase if label == "long" else "swap"}, label)

    status.ended("short", 0.1)

    found = status.conditions.items[Condition.RECONCILING]
    assert (found["reason"], found["message"]) == (reason, "long")
