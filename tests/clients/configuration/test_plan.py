"""The changes of a file: found, explained by their cause, and without the secrets of others."""

from __future__ import annotations

import pytest

from mullama.clients.base import ClientFile, Edit
from mullama.clients.plan import plan_file
from mullama.errors import Invalid, Refused
from mullama.plan.steps import Cause

FILE = ClientFile(
    path="/home/me/.x/settings.json", form="jsonc",
    edits=(
        Edit(path=("version",), value=1, only_missing=True),
        Edit(path=("env",), value={"URL": "http://h", "API_KEY": "none"}),
    ),
)  # fmt: skip
APPLIED = {"env.URL": "http://h", "env.API_KEY": "none"}


def test_a_missing_file_is_made_with_every_field() -> None:
    plan = plan_file("x", FILE, None)
    assert [str(change) for change in plan.changes] == [
        "+ version: 1", '+ env.URL: "http://h"', '+ env.API_KEY: "none"',
    ]  # fmt: skip
    assert plan.before is None
    assert plan_file("x", FILE, plan.after).changes == ()
    assert plan.values == APPLIED  # a field that is only set where it is missing is nobody's drift


def test_a_change_by_others_since_the_last_apply_is_drift() -> None:
    text = '{"version": 3, "env": {"URL": "http://other", "API_KEY": "none"}}'
    [change] = plan_file("x", FILE, text, APPLIED).changes
    assert (change.path, change.cause) == ("env.URL", Cause.DRIFT)
    assert str(change) == '~ env.URL: "http://other" -> "http://h"  (drift)'
    [change] = plan_file("x", FILE, text).changes
    assert change.cause is Cause.DESIRED
    [change] = plan_file("x", FILE, text, {"env.URL": "http://older"}).changes
    assert change.cause is Cause.DESIRED


def test_a_field_that_is_not_declared_any_more_is_gone_where_only_applies_have_changed_the_file() -> None:
    mine = '{"mine": 1}'
    first = plan_file("x", FILE, mine)
    other = ClientFile(path=FILE.path, form="jsonc", edits=(Edit(path=("env", "URL"), value="http://h"),))
    plan = plan_file("x", other, first.after, first.values, base=mine)
    assert [str(change) for change in plan.changes] == ['- env.API_KEY: "none"']
    assert "API_KEY" not in plan.after
    assert '"mine": 1' in plan.after
    assert "API_KEY" in plan_file("x", other, first.after + "\n", first.values).after


def test_a_value_that_may_be_a_secret_is_not_shown() -> None:
    text = '{"version": 1, "env": {"URL": "https://me:pw@h/?key=abc", "API_KEY": "sk-secret"}}'
    shown = " ".join(map(str, plan_file("x", FILE, text).changes))
    assert "sk-secret" not in shown
    assert "pw@" not in shown
    assert "abc" not in shown


def test_a_byte_order_mark_stays() -> None:
    plan = plan_file("x", FILE, '\ufeff{"env": {}}')
    assert plan.after.startswith("\ufeff{")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{\n  oops\n}", Invalid, r"settings.json:2:3: a key in double quotes"),
        ('{"env": "x"}', Refused, "env is not a map"),
        ("[]", Refused, "the file is not a map"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_file("x", FILE, text)
