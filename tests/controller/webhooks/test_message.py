"""Requests of webhooks as values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from mullama.controller.webhooks.message import message, signature
from mullama.manifest.spec import Webhook
from mullama.manifest.spec.observability import EventKind

PACKAGE = Path(__file__).parents[3] / "mullama"

EVENT = {"id": 7, "when": 1700000000.5, "kind": "degraded", "subject": "chat", "message": "it does not fit"}


def hook(**fields: Any) -> Webhook:
    return Webhook.model_validate({"url": "https://hooks.example.org/x", **fields})


def body(event: dict[str, Any], secret: str | None = None, **fields: Any) -> Any:
    return json.loads(message(hook(**fields), event, server="box", uid="evt_1", secret=secret, now=1).body)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the specification's reference libraries."""
    secret, uid = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    found = signature(secret, uid, 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["plain", "whsec_not base64"])
def test_other_secrets_are_used_as_they_are(secret: str) -> None:
    assert signature(secret, "a", 1, b"x") != signature(secret + "x", "a", 1, b"x")


def test_the_standard_form_has_the_event_and_its_headers() -> None:
    made = message(hook(), EVENT, server="box", uid="evt_1", secret="s", now=1700000001)
    assert json.loads(made.body) == {
        "type": "mullama.degraded",
        "timestamp": "2023-11-14T22:13:20.500Z",
        "data": {"server": "box", **EVENT},
    }
    assert made.headers == {
        "content-type": "application/json",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1700000001",
        "webhook-signature": signature("s", "evt_1", 1700000001, made.body),
    }


def test_without_a_secret_nothing_is_signed() -> None:
    made = message(hook(), EVENT, server="box", uid="evt_1", secret=None, now=1)
    assert "webhook-signature" not in made.headers


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (EVENT, "mullama box: degraded chat: it does not fit"),
        (EVENT | {"kind": "not-applied", "subject": ""}, "mullama box: not applied: it does not fit"),
        (EVENT | {"kind": "recovered", "subject": "", "message": ""}, "mullama box: recovered"),
    ],
)
def test_the_form_of_slack_is_one_line(event: dict[str, Any], text: str) -> None:
    assert body(event, form="slack") == {"text": text}


@pytest.mark.parametrize(
    ("kind", "action", "incident", "severity"),
    [
        ("degraded", "trigger", "models", "error"),
        ("recovered", "resolve", "models", "info"),
        ("not-applied", "trigger", "manifest", "error"),
        ("held", "trigger", "manifest", "warning"),
        ("applied", "resolve", "manifest", "info"),
        ("worker-failed", "trigger", "worker-failed", "warning"),
        ("worker", "trigger", "worker", "info"),
        ("evicted", "trigger", "evicted", "info"),
        ("certificate-refused", "trigger", "certificate", "error"),
        ("certificate", "resolve", "certificate", "info"),
        ("git-failed", "trigger", "repository", "error"),
        ("git-commit", "resolve", "repository", "info"),
        ("usage-not-recorded", "trigger", "usage-not-recorded", "error"),
    ],
)
def test_an_incident_of_pagerduty_is_opened_and_closed(kind: str, action: str, incident: str, severity: str) -> None:
    found = body(EVENT | {"kind": kind}, "key", form="pagerduty")
    assert found["routing_key"] == "key"
    assert found["event_action"] == action
    assert found["dedup_key"] == f"mullama/box/{incident}"
    assert found["payload"]["severity"] == severity


def test_a_long_summary_is_cut_to_what_pagerduty_takes() -> None:
    found = body(EVENT | {"message": "x" * 5000}, "key", form="pagerduty")
    assert len(found["payload"]["summary"]) == 1024


def test_a_webhook_may_select_every_kind_of_event() -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    added = set(re.findall(r'(?:event_log\.(?:add|note)|\b_note)\(\s*"([a-z-]+)"', code))
    assert {"applied", "worker", "worker-failed", "git-failed"} <= added
    assert added <= set(get_args(EventKind))


@pytest.mark.parametrize("form", ["standard", "slack", "pagerduty"])
def test_a_message_continues_the_trace_of_its_event(form: str) -> None:
    trace = {"traceparent": "00-00000000000000000000000000000001-0000000000000002-01", "tracestate": "a=1"}
    made = message(hook(form=form), EVENT | trace, server="box", uid="evt_1", secret="s", now=1)
    assert {name: made.headers[name] for name in trace} == trace
