"""Reloads that change routes, groups, keys and rates under load: each request is answered by the rules in force."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack
from tests.e2e.stream_load import Refusal, reload, stream

NAMES = ("steady", "limited", "guest", "ops")
CLIENTS = {"steady": [("front",), ("side", "front"), ("x", "y")], "limited": [("front",)], "guest": [("side",)]}
"""The models that the clients of each key ask in turn."""
ROUTES: list[tuple[Any, str]] = [
    ("a", "A"),
    ("b", "B"),
    ({"to": ["a", "b"]}, "AB"),
    ({"to": [{"model": "a", "weight": 1}, {"model": "b", "weight": 99}], "fallback": ["a"]}, "AB"),
    ({"to": [{"model": "a", "weight": 0}, {"model": "b", "weight": 1}], "force": {"temperature": 0}}, "B"),
    ({"to": "a", "fallback": ["b"], "on_error": ["overloaded"], "strip": ["seed"]}, "A"),
]
GROUPS: list[dict[str, Any]] = [
    {},
    {"g": {"models": ["x", "y"], "max": 1}},
    {"g": {"models": ["a", "x", "y"], "max": 2}, "h": {"models": ["b", "x"], "max": 1}},
]
WIDE: list[dict[str, Any]] = [{}, {"rate": {"requests": "1k/s"}, "quota": {"tokens": "5G/d"}}]
TIGHT: list[dict[str, Any]] = [{"rate": {"requests": "2/s"}}, {"quota": {"requests": "1/d"}}]


@dataclass(frozen=True)
class Rules:
    """The part of a manifest on which the outcome of a request depends. settled: it is in force everywhere."""

    letters: dict[str, str]
    """The models that may answer, by the name that the request has."""
    keys: tuple[str, ...] = NAMES
    limited: bool = False
    """True if the key `limited` may be refused."""
    settled: bool = False


@dataclass
class Watched:
    """Clients that compare each outcome with the rules, and the rules at this moment."""

    url: str
    rules: Rules
    failures: list[str] = field(default_factory=list)
    answered: int = 0
    seen: set[str] = field(default_factory=set)
    """The kinds of outcomes."""
    compared: Counter[str] = field(default_factory=Counter)
    """Outcomes under settled rules, by the key of their client."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self, key: str, *models: str) -> None:
        thread = threading.Thread(target=self._client, args=(key, models), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _client(self, key: str, models: tuple[str, ...]) -> None:
        number = 0
        with httpx.Client(timeout=60) as client:
            while not self.stop.is_set():
                before, model = self.rules, models[number % len(models)]
                number += 1
                try:
                    outcome = stream(client, self.url, model, f"{key}-secret")
                except Refusal as refusal:
                    outcome = str(refusal.status)
                    if refusal.status == 429 and "retry-after" not in refusal.headers:
                        outcome = f"{refusal} without a time"
                    self.stop.wait(0.02)  # a refused client need not use a whole processor
                except Exception as error:  # noqa: BLE001 - any error is a lost request
                    outcome = f"{type(error).__name__}: {error}"
                self._compare(key, model, outcome, before if before is self.rules else None)

    def _compare(self, key: str, model: str, outcome: str, rules: Rules | None) -> None:
        """rules: None if they changed during the request."""
        text = outcome if len(set(outcome)) == 1 else ""
        settled = rules is not None and rules.settled
        unknown = outcome in ("401", "429")  # 429: the same wrong key too often
        if settled and rules is not None and key not in rules.keys:
            right = unknown
        elif text:
            right = not settled or rules is None or text[0] in rules.letters[model]
        else:
            may_be_limited = key == "limited" and (not settled or (rules is not None and rules.limited))
            right = (unknown and key == "guest" and not settled) or (outcome == "429" and may_be_limited)
        with self.changed:
            self.answered += bool(text)
            if not right:
                self.failures.append(f"{key} {model}: {outcome} under {rules}")
            self.seen.add("answer" if text else outcome)
            self.compared[key] += settled
            self.changed.notify_all()

    def wait_for_comparisons(self, more: int) -> None:
        """Wait until so many more outcomes of each key were compared, or one was wrong."""
        with self.changed:
            least = {key: self.compared[key] + more for key in CLIENTS}
            assert self.changed.wait_for(lambda: self.compared >= Counter(least) or bool(self.failures), 60)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def write(stack: Stack, chosen: random.Random, edit: int) -> Rules:
    """Save a manifest with other routes, groups, keys and rates; return the rules that it sets."""
    (front, front_letters), (side, side_letters) = chosen.choice(ROUTES), chosen.choice(ROUTES)
    limits = chosen.choice(WIDE + TIGHT)
    keys: dict[str, Any] = {name: {"secret": {"from_env": name.upper()}} for name in NAMES}
    keys["ops"] |= {"roles": ["admin"]}
    keys["steady"] |= {"priority": chosen.randint(-5, 5)} | chosen.choice(WIDE)
    keys["limited"] |= limits
    if chosen.random() < 0.3:
        del keys["guest"]
    per_key = {"rate_per_key": {"requests": "10k/s"}} if chosen.random() < 0.5 else {}
    models: dict[str, Any] = {
        name: {
            "from": f"./{name}.script.json",
            "limits": {"queue": 100, "parallel": 8, **per_key},
            "residency": {"load": "at_start" if name in "ab" else "on_demand"},
        }
        for name in "abxy"
    }
    routes = {"front": front, "side": side}
    metadata = {"labels": {"edit": str(edit)}}
    server = {"listen": ["127.0.0.1:0"], "limits": {"queue_timeout": "60s"}}
    groups = chosen.choice(GROUPS)
    stack.write(models, server=server, routes=routes, groups=groups, auth={"keys": keys}, metadata=metadata)
    letters = {"front": front_letters, "side": side_letters, "x": "X", "y": "Y"}
    return Rules(letters=letters, keys=tuple(keys), limited=limits in TIGHT, settled=True)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("edits", [16, pytest.param(1000, marks=pytest.mark.soak)])
def test_reloads_of_rules_lose_no_request(empty_stack: Stack, edits: int) -> None:
    """Routes, groups, keys and rates change at random; a request that the rules allow is always answered by a model
    that they allow, and only limited and removed keys are refused.
    """
    stack, chosen = empty_stack, random.Random(16)
    stack.variables |= {name.upper(): f"{name}-secret" for name in NAMES}
    for name in "abxy":
        rules = [{"when": "go", "say": name.upper() * 60}]
        (stack.home / f"{name}.script.json").write_text(json.dumps({"rules": rules}))
    watched = Watched("", write(stack, chosen, 0))
    stack.serve()
    watched.url = stack.ready()
    for key, clients in CLIENTS.items():
        for models in clients:
            watched.begin(key, *models)

    try:
        for edit in range(1, edits + 1):
            watched.rules = Rules(letters={})
            rules = write(stack, chosen, edit)
            answer = reload(watched.url, "ops-secret")
            assert answer["outcome"] == "applied", answer
            watched.rules = rules
            watched.wait_for_comparisons(2)  # a quota of one request refuses the second
            assert watched.failures == [], edit
    finally:
        watched.end()

    headers = {"authorization": "Bearer ops-secret"}
    applied = httpx.get(f"{watched.url}/api/v1/stack", headers=headers, timeout=60).json()
    assert applied["manifest"]["metadata"]["labels"] == {"edit": str(edits)}
    assert applied["generation"] > edits * 0.8
    assert watched.answered > 2 * edits
    assert watched.seen == {"answer", "401", "429"}
