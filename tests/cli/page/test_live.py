"""The live view, folded from updates."""

from __future__ import annotations

import pytest

from mullama.cli.page.live import KEPT_EVENTS, KEPT_SAMPLES, LiveView, severity, taken
from tests.cli.page.scripted import event, model, sample, status


def begun(*events: dict) -> LiveView:
    return taken(LiveView(), {"status": status(model("a"), model("b")), "events": list(events)})


def test_changed_models_and_fields_replace_their_own() -> None:
    view = taken(begun(), {"models": [model("b", state="idle")], "server": {"state": "degraded"}, **sample()})
    assert [(row["name"], row["state"]) for row in view.models] == [("a", "ready"), ("b", "idle")]
    assert view.status["state"] == "degraded"
    assert view.status["generation"] == 3, "what did not change stays"


def test_events_are_appended_once_and_bounded() -> None:
    view = begun(event(1, "applied"), event(2, "degraded", "a"))
    view = taken(view, {"events": [event(2, "degraded", "a"), event(3, "recovered")], **sample()})
    assert [one["id"] for one in view.events] == [1, 2, 3]
    view = taken(view, {"events": [event(i, "worker") for i in range(4, KEPT_EVENTS + 50)], **sample()})
    assert len(view.events) == KEPT_EVENTS


def test_a_new_connection_begins_with_the_events_of_the_new_process() -> None:
    view = taken(begun(event(90, "applied")), {"status": status(model("a")), "events": [event(1, "listening")]})
    assert [one["id"] for one in view.events] == [1]


def test_a_status_between_keeps_the_events() -> None:
    view = taken(begun(event(5, "applied")), {"status": status(model("new")), **sample()})
    assert [one["id"] for one in view.events] == [5]
    assert [row["name"] for row in view.models] == ["new"]


def test_speeds_of_a_model_are_zero_where_a_sample_does_not_name_it() -> None:
    view = begun()
    for tokens in ({"a": 3.0}, {"b": 1.0}, {"a": 5.0}):
        view = taken(view, sample(**tokens))
    assert view.speeds("a") == (3.0, 0.0, 5.0)
    for _ in range(KEPT_SAMPLES):
        view = taken(view, sample())
    assert len(view.samples) == KEPT_SAMPLES


def test_the_last_error_of_a_model_is_the_newest_failure_that_names_it() -> None:
    view = begun(
        event(1, "fetch-failed", "a", "no route"),
        event(2, "degraded", "a, b", "a: no memory"),
        event(3, "applied", "a"),
        event(4, "degraded", "aa", "another"),
    )
    found = view.last_error("a")
    assert found is not None
    assert found["id"] == 2
    assert view.last_error("c") is None


def test_the_failure_of_a_worker_is_that_of_its_models() -> None:
    view = begun({**event(1, "worker-failed", "70ada60a", "killed"), "models": ["a", "b"]})
    found = view.last_error("b")
    assert found is not None
    assert found["message"] == "killed"
    assert view.last_error("c") is None


@pytest.mark.parametrize(
    ("kind", "word"),
    [("applied", "plain"), ("worker-failed", "error"), ("degraded", "error"), ("held", "warning")],
)
def test_the_severity_of_an_event_is_that_of_its_kind(kind: str, word: str) -> None:
    assert severity(event(1, kind)) == word
