"""The webhooks of a real server: a receiver that is away for a moment, a broken manifest, and a forbidden address."""

from __future__ import annotations

import json
from typing import Any

from mullama.controller.webhooks.message import signature
from tests.e2e.stack import Stack, eventually
from tests.hook_receiver import receiver_on_loopback


def failed(stack: Stack) -> list[dict[str, Any]]:
    """Return the events of messages that were not delivered."""
    lines = stack.run("events", "-f", stack.name, "--json").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "webhook-failed"]


def test_webhooks_are_tried_again_and_never_reach_the_metadata_of_a_cloud(stack: Stack) -> None:
    stack.variables |= {"HOOK_SECRET": "s", "METADATA": "http://169.254.169.254/latest/meta-data"}
    (stack.home / "demo.script.json").write_text(json.dumps({"name": "demo"}))
    with receiver_on_loopback(first=(503,), retry_after="0") as (url, got):
        hooks = [
            {"url": url, "events": ["applied", "invalid-manifest"], "secret": {"from_env": "HOOK_SECRET"}},
            {"url": {"from_env": "METADATA"}, "events": ["applied"]},
        ]
        stack.write({"demo": "./demo.script.json"}, observability={"webhooks": hooks})
        stack.apply()
        eventually(lambda: len(got) == 2)
        stack.write_text("models: [")
        eventually(lambda: len(got) == 3)
        eventually(lambda: bool(failed(stack)))

    sent = [json.loads(body) for _, body in got]
    assert [tree["type"] for tree in sent] == ["mullama.applied", "mullama.applied", "mullama.invalid-manifest"]
    assert (sent[0], got[0][0]["webhook-id"]) == (sent[1], got[1][0]["webhook-id"])
    times = [int(headers["webhook-timestamp"]) for headers, _ in got]
    assert times[1] - times[0] >= 1, "the pause before the second try"
    for headers, body in got:
        expected = signature("s", headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == expected

    (event,) = failed(stack)  # of the second webhook alone
    assert event["subject"] == "METADATA"
    assert "which is an address of this link" in event["message"]
