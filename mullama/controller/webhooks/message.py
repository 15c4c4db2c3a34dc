"""The request of a webhook for one event, in the forms of Standard Webhooks, Slack and PagerDuty."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, assert_never

from mullama.controller.event_log import level_of
from mullama.manifest.spec import Webhook
from mullama.struct import Struct, replace

_SECRET_PREFIX = "whsec_"

# The incident that an event opens or closes in PagerDuty. Other events open one of their own kind.
_INCIDENTS: Mapping[str, str] = {
    "not-applied": "manifest", "invalid-manifest": "manifest", "held": "manifest", "applied": "manifest",
    "degraded": "models", "recovered": "models", "not-listening": "listeners", "listening": "listeners",
    "certificate-refused": "certificate", "certificate": "certificate",
    "git-failed": "repository", "git-edited": "repository", "git-commit": "repository",
    "telemetry-failed": "telemetry", "telemetry-recovered": "telemetry",
    "peer-ejected": "peers", "peer-recovered": "peers",
}  # fmt: skip
_CLOSING = ("applied", "recovered", "listening", "certificate", "git-commit", "telemetry-recovered", "peer-recovered")
_SEVERITIES = {logging.ERROR: "error", logging.WARNING: "warning"}


class HookMessage(Struct, frozen=True):
    """A request to a webhook: its headers and its body."""

    headers: Mapping[str, str]
    body: bytes


def message(
    hook: Webhook, event: Mapping[str, Any], *, server: str, uid: str, secret: str | None, now: int
) -> HookMessage:
    """Return the request for an event, in the trace of the request that caused the event.

    server: the name in the manifest's metadata. uid: an id of the event that no other event of any server has.
    now: unix seconds, which a receiver compares with its own clock against replays.
    """
    made = _of_form(hook, event, server, uid, secret, now)
    trace = {name: event[name] for name in ("traceparent", "tracestate") if name in event}
    return replace(made, headers={**made.headers, **trace}) if trace else made


def _of_form(
    hook: Webhook, event: Mapping[str, Any], server: str, uid: str, secret: str | None, now: int
) -> HookMessage:
    match hook.form:
        case "standard":
            return _standard(event, server, uid, secret, now)
        case "slack":
            return _json({"text": f"mullama {server}: {_text(event)}"})
        case "pagerduty":
            return _json(_pagerduty(event, server, secret or ""))
        case _ as never:
            assert_never(never)


def signature(secret: str, uid: str, now: int, body: bytes) -> str:
    """Return the signature of the specification "Standard Webhooks": `v1,` and base64 of HMAC-SHA256.

    A secret that begins with `whsec_` is base64; any other is used as it is.
    """
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        with contextlib.suppress(binascii.Error):
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    signed = b".".join((uid.encode(), str(now).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _standard(event: Mapping[str, Any], server: str, uid: str, secret: str | None, now: int) -> HookMessage:
    plain = _json({"type": f"mullama.{event['kind']}", "timestamp": _when(event), "data": {"server": server, **event}})
    headers = {**plain.headers, "webhook-id": uid, "webhook-timestamp": str(now)}
    if secret is not None:
        headers["webhook-signature"] = signature(secret, uid, now, plain.body)
    return HookMessage(headers, plain.body)


def _pagerduty(event: Mapping[str, Any], server: str, routing_key: str) -> dict[str, Any]:
    kind = event["kind"]
    return {
        "routing_key": routing_key,
        "event_action": "resolve" if kind in _CLOSING else "trigger",
        "dedup_key": f"mullama/{server}/{_INCIDENTS.get(kind, kind)}",
        "payload": {
            "summary": f"mullama {server}: {_text(event)}"[:1024],
            "source": server,
            "severity": _SEVERITIES.get(level_of(kind), "info"),
            "timestamp": _when(event),
            "custom_details": dict(event),
        },
    }


def _text(event: Mapping[str, Any]) -> str:
    """Return the event on one line: kind, subject, message."""
    head = " ".join(part for part in (event["kind"].replace("-", " "), event["subject"]) if part)
    return f"{head}: {event['message']}" if event["message"] else head


def _when(event: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(event["when"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(tree: Mapping[str, Any]) -> HookMessage:
    return HookMessage({"content-type": "application/json"}, json.dumps(tree, ensure_ascii=False).encode())
