"""Rate limits of a real server: the quota of a key survives a kill, and a changed limit is live."""

from __future__ import annotations

import signal
from typing import Any

import httpx

from tests.e2e.stack import SECONDS, Stack, eventually

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def ask(url: str, key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=60)


def write(stack: Stack, quota: dict[str, Any]) -> None:
    keys = {name: {"secret": {"from_env": name.upper()}} for name in ("ci", "other")}
    keys["ops"] = {"secret": {"from_env": "OPS"}, "roles": ["admin"]}
    keys["ci"] |= {"quota": quota}
    stack.write(auth={"keys": keys})


def test_a_quota_survives_a_kill_and_changes_live(empty_stack: Stack) -> None:
    stack = empty_stack
    stack.variables |= {"CI": "ci-secret", "OTHER": "other-secret", "OPS": "ops-secret"}
    write(stack, {"requests": "3/d", "tokens": "50k/d"})
    server = stack.serve()
    url = stack.ready()

    answers = [ask(url, "ci-secret") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429], answers[0].text
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["2", "1", "0", "0"]
    assert "the quota of the key 'ci' is used up: 3 requests per day" in answers[3].text
    assert int(answers[3].headers["retry-after"]) > 20_000
    assert ask(url, "other-secret").status_code == 200
    rates = {rate["limit"]: rate for rate in stack.status()["rates"]}
    assert rates["auth.keys.ci.quota.requests"]["refused"] == 1
    assert 49_000 < rates["auth.keys.ci.quota.tokens"]["remaining"] < 50_000

    eventually(lambda: bool([*stack.home.glob("state/mullama/*/rates.json")]), stack.log)
    server.send_signal(signal.SIGKILL)
    server.wait(SECONDS)
    stack.serve()
    url = stack.ready()
    assert ask(url, "ci-secret").status_code == 429

    write(stack, {"requests": "3M/d"})  # the used share stays used, and refills within a second
    stack.apply()
    eventually(lambda: ask(url, "ci-secret").status_code == 200, stack.log)
