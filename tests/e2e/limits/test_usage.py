"""`mullama usage` of a real server, before and after a kill."""

from __future__ import annotations

import csv
import io
import signal

import httpx

from tests.e2e.stack import SECONDS, Stack, eventually


def test_usage_by_key_survives_a_kill(empty_stack: Stack) -> None:
    stack = empty_stack
    stack.variables |= {"CI": "ci-secret", "WATCH": "watch-secret"}
    keys = {
        "ci": {"secret": {"from_env": "CI"}},
        "watch": {"secret": {"from_env": "WATCH"}, "roles": ["read"]},
    }
    stack.write(auth={"keys": keys}, routes={"front": "demo"})
    server = stack.serve()
    url = stack.ready()

    def ask(model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "secret words"}], "max_tokens": 3}
        headers = {"authorization": "Bearer ci-secret"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text

    def requests() -> int:
        rows = stack.json("usage", "-f", stack.name, "--by", "key", "--json")["rows"]
        return sum(row["requests"] for row in rows if row["key"] == "ci")

    ask("demo")
    ask("front")
    assert requests() == 2
    server.send_signal(signal.SIGKILL)
    server.wait(SECONDS)
    stack.serve()
    url = stack.ready()
    ask("front")
    eventually(lambda: requests() == 3, stack.log)

    shown = stack.run("usage", "-f", stack.name, "--by", "route", "--by", "key", "--csv").stdout
    rows = {row["route"]: row for row in csv.DictReader(io.StringIO(shown))}
    assert (rows["front"]["requests"], rows["demo"]["requests"], rows["front"]["key"]) == ("2", "1", "ci")
    table = stack.run("usage", "-f", stack.name, "--per", "day").stdout
    assert "REQUESTS" in table
    assert "demo" in table
    read = {"authorization": "Bearer watch-secret"}
    answer = httpx.get(f"{url}/api/v1/usage?by=key,model&since=1h&span=hour", headers=read, timeout=60)
    assert answer.json()["format"] == "mullama.usage/1"
    assert httpx.get(f"{url}/api/v1/usage", headers={"authorization": "Bearer ci-secret"}).status_code == 403
    assert httpx.get(f"{url}/api/v1/usage?by=prompt", headers=read).status_code == 400
    assert httpx.get(f"{url}/api/v1/keys", headers=read).status_code == 403
    for path in stack.home.glob("state/mullama/*/usage.sqlite*"):
        assert b"secret" not in path.read_bytes()
