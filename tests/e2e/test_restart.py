"""A server that starts again with a missing file and an unreadable include."""

from __future__ import annotations

import json

from tests.e2e.stack import Stack, eventually


def test_a_restart_serves_what_is_there_and_mends_itself(empty_stack: Stack) -> None:
    stack = empty_stack
    scripts = [stack.home / f"{name}.script.json" for name in ("here", "gone")]
    for path in scripts:
        path.write_text(json.dumps({"name": path.name}))
    include = stack.home / "more.yaml"
    text = "models: {gone: {from: ./gone.script.json, residency: {load: on_demand}}}\n"
    include.write_text(text)
    stack.write({"here": "./here.script.json"}, include=["more.yaml"])
    stack.apply()
    stack.down()
    scripts[1].unlink()
    include.unlink()

    stack.serve()
    stack.ready()

    status = stack.json("status", "-f", stack.name, "--json", code=8)
    assert {m["name"]: m["state"] for m in status["models"]} == {"here": "ready", "gone": "failed"}
    assert {c["type"]: c["reason"] for c in status["conditions"] if not c["status"]} == {
        "ConfigValid": "InvalidManifest", "Synced": "FetchFailed", "Reconciling": "Idle",
    }  # fmt: skip
    log = (stack.home / "serve.log").read_text()
    assert log.count("error gone: failed: ") == 1
    assert log.count("info listening on 127.0.0.1:") == 1

    scripts[1].write_text(json.dumps({"name": "gone"}))
    include.write_text(text)
    stack.run("reload", "-f", stack.name)
    eventually(lambda: stack.status()["state"] == "ready", stack.log)
    stack.run("status", "-f", stack.name, code=0)
