"""A real server that follows a repository: commits, a bad one, a notice of the host, a hand edit and a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually
from tests.git_host import GitHost, git_host


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHost]:
    with git_host(tmp_path_factory.mktemp("host")) as found:
        yield found


def text(*models: str, **more: str) -> str:
    tree = {
        "mullama": "v1",
        "server": {"listen": ["127.0.0.1:0"]},
        "models": {name: {"from": "builtin:tiny", "system": more.get("system", "")} for name in models},
    }
    return json.dumps(tree)


@pytest.mark.timeout(180)
def test_a_server_follows_its_repository(empty_stack: Stack, host: GitHost, tmp_path: Path) -> None:
    stack = empty_stack
    stack.variables |= {"HOOK": "s3cret"}
    first = host.commit({"mullama.yaml": text("one")})
    git = {"url": host.url, "interval": "1h", "webhook": {"secret": {"from_env": "HOOK"}}}
    stack.write({}, sync={"git": git})
    stack.serve()

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(stack.run("status", "-f", stack.name, "--json", code=None).stdout or "{}")
        return found

    def models() -> set[str]:
        return {model["name"] for model in status().get("models", ()) if model["state"] == "ready"}

    def condition(kind: str) -> dict[str, Any]:
        return next((c for c in status().get("conditions", ()) if c["type"] == kind), {})

    def notice() -> None:
        answer = httpx.post(f"{stack.url}/api/v1/sync", json={}, headers={"x-gitlab-token": "s3cret"}, timeout=30)
        assert answer.status_code == 202, answer.text

    eventually(lambda: models() == {"one"}, stack.log)
    eventually(lambda: status()["git"]["applied"] == first, stack.log)
    assert httpx.post(f"{stack.url}/api/v1/sync", headers={"x-gitlab-token": "x"}).status_code == 401

    second = host.commit({"mullama.yaml": text("one", "two")})
    notice()
    eventually(lambda: models() == {"one", "two"}, stack.log)
    (newest, *_) = stack.json("history", "-f", stack.name, "--json")["generations"]
    assert (newest["by"], newest["origin"]["commit"]) == (f"commit {second[:12]}", second)

    host.commit({"mullama.yaml": 'mullama: v1\nmodels:\n  one: {from: "builtin:tiny", sistem: x}\n'})
    notice()
    eventually(lambda: condition("ConfigValid").get("status") is False, stack.log)
    assert "mullama.yaml:3:" in condition("ConfigValid")["message"]
    assert models() == {"one", "two"}

    # A force-pushed commit waits for `reload`.
    good = host.commit({"mullama.yaml": text("one", "two", "three")}, amend=True)
    notice()
    eventually(lambda: condition("GitSynced").get("reason") == "HistoryRewritten", stack.log)
    assert models() == {"one", "two"}
    stack.run("reload", "-f", stack.name)
    eventually(lambda: models() == {"one", "two", "three"}, stack.log)

    # A hand edit is reported, and `reload` applies the commit again.
    (tmp_path / "hand.yaml").write_text(json.dumps({**json.loads(text("one", "two")), "sync": {"git": git}}))
    instance = ["--host", f"unix:{stack.record['control']}"]
    stack.run("apply", "-f", str(tmp_path / "hand.yaml"), *instance, "--yes")
    eventually(lambda: condition("GitSynced").get("reason") == "HandEdited", stack.log)
    stack.run("reload", *instance)
    eventually(lambda: models() == {"one", "two", "three"}, stack.log)
    assert condition("GitSynced")["status"] is True

    # A restart serves the commit, also while the host is away.
    stack.down()
    host.token = "away"
    stack.serve()
    eventually(lambda: models() == {"one", "two", "three"}, stack.log)
    assert status()["git"]["commit"] == good
    eventually(lambda: condition("GitSynced").get("reason") == "GitFailed", stack.log)
