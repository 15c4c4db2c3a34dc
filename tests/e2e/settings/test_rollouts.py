"""Replacements, drift and renames on a real server: the plan states what happens, and it happens."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually


def plan(stack: Stack, *arguments: str, code: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = stack.json("diff", "-f", stack.name, "--format", "json", *arguments, code=code)
    return found


@pytest.mark.parametrize(("strategy", "pause"), [("surge", False), ("recreate", True), ("auto", False)])
def test_the_strategy_is_shown_and_followed(empty_stack: Stack, strategy: str, pause: bool) -> None:
    stack = empty_stack

    def write(size: int) -> None:
        rollout = {"strategy": strategy}
        stack.write(
            {"demo": {"from": "builtin:tiny", "context": {"size": size}, "rollout": rollout}}, sync={"watch": False}
        )

    write(256)
    stack.apply()
    write(512)
    (step,) = plan(stack)["steps"]
    assert step["pause"] is pause
    assert ("pause" in stack.run("diff", "-f", stack.name, "--fail-on", "pause", code=2 if pause else 0).stdout) is True
    stack.apply()
    assert stack.status()["models"][0]["context_size"] == 512


def test_drift_alone_is_shown_and_a_refresh_loads_nothing(empty_stack: Stack) -> None:
    stack = empty_stack
    stack.write({"demo": "builtin:tiny"}, sync={"watch": False})
    stack.apply()
    stack.write({"demo": "builtin:tiny", "more": "builtin:tiny"}, sync={"watch": False})
    assert plan(stack, "--refresh-only", code=0)["drift"] == []

    stack.run("unload", "demo")
    eventually(lambda: stack.status()["models"][0]["state"] == "idle", stack.log)
    assert [(s["subject"], s["cause"]) for s in plan(stack, "--refresh-only")["drift"]] == [("demo", "drift")]
    stack.apply("--refresh-only")
    assert [model["name"] for model in stack.status()["models"]] == ["demo"]
    assert stack.status()["models"][0]["state"] != "ready"
    assert "refreshed" in stack.run("events", "-f", stack.name).stdout
    stack.apply()
    assert {model["state"] for model in stack.status()["models"]} == {"ready"}


def test_renamed_routes_and_keys_keep_their_usage(empty_stack: Stack) -> None:
    stack = empty_stack
    stack.variables |= {"CI": "ci-secret", "OPS": "ops-secret"}
    (stack.home / "demo.script.json").write_text(json.dumps({"rules": [{"when": ".", "say": "yes"}]}))

    def write(route: str, key: str, **more: Any) -> None:
        ops = {"secret": {"from_env": "OPS"}, "roles": ["admin"]}
        keys = {key: {"secret": {"from_env": "CI"}, "quota": {"requests": "3/d"}}, "ops": ops}
        stack.write({"demo": "./demo.script.json"}, routes={route: "demo"}, auth={"keys": keys}, **more)

    def ask(route: str) -> int:
        body = {"model": route, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": "Bearer ci-secret"}
        return httpx.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers, timeout=60).status_code

    write("talk", "ci")
    stack.apply()
    assert [ask("talk"), ask("talk")] == [200, 200]
    moved = [{"from": "talk", "to": "chat", "kind": "route"}, {"from": "ci", "to": "build", "kind": "key"}]
    write("chat", "build", moved=moved)
    stack.apply()
    eventually(lambda: stack.status()["routes"] == {"chat": "demo"}, stack.log)
    assert [ask("chat"), ask("chat")] == [200, 429]
    rows = stack.json("usage", "-f", stack.name, "--by", "route", "--by", "key", "--json")["rows"]
    assert [(row["route"], row["key"], row["requests"]) for row in rows] == [("chat", "build", 3)]
