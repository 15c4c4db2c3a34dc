"""Routes of a real server: conversations stay with their model, and the answer names the model that gave it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, serving

ROUTES = {
    "shared": {"to": [{"model": "a", "weight": 1}, {"model": "b", "weight": 1}]},
    "safe": {"to": "broken", "fallback": ["b"]},
    "exact": {"to": "a", "parameters": {"num_predict": 2}, "force": {"temperature": 0}, "strip": ["seed"]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("routes")
    for name in "ab":
        (home / f"{name}.script.json").write_text(json.dumps({"name": name, "rules": [{"when": ".", "say": name * 9}]}))
    (home / "broken.script.json").write_text(json.dumps({"name": "broken"}))
    models = {
        "a": "./a.script.json",
        "b": "./b.script.json",
        "broken": {"from": "./broken.script.json", "residency": {"load": "on_demand"}},
    }
    with serving(home, models, routes=ROUTES) as stack:
        (home / "broken.script.json").unlink()
        yield stack


def ask(server: Stack, route: str, **more: Any) -> httpx.Response:
    body = {"model": route, "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_a_conversation_stays_with_its_model_and_users_are_shared(server: Stack) -> None:
    by_user = {user: ask(server, "shared", user=user).headers["mullama-model"] for user in map(str, range(16))}
    assert set(by_user.values()) == {"a", "b"}
    for user, model in list(by_user.items())[:4]:
        answer = ask(server, "shared", user=user)
        assert (answer.headers["mullama-model"], answer.json()["model"]) == (model, "shared")
        assert answer.json()["choices"][0]["message"]["content"] == model * 9


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_cannot_load_is_replaced_before_the_first_byte(server: Stack, stream: bool) -> None:
    answer = ask(server, "safe", stream=stream)
    assert (answer.status_code, answer.headers["mullama-model"]) == (200, "b")
    assert "bbbb" in answer.text.replace('"}', "") or stream
    anthropic = {"model": "safe", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert httpx.post(f"{server.url}/v1/messages", json=anthropic, timeout=60).headers["mullama-model"] == "b"
    counted = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert 'mullama_route_fallbacks_total{fallback="b",model="broken"' in counted
    rows = server.json("usage", "-f", server.name, "--by", "route", "--by", "model", "--json")["rows"]
    assert {(row["model"], row["errors"]) for row in rows if row["route"] == "safe"} == {("b", 0)}


def test_parameters_of_a_route_are_those_of_its_requests(server: Stack) -> None:
    body = {"model": "exact", "prompt": "hi", "temperature": 1.5, "seed": 7}
    given = httpx.post(f"{server.url}/completion", json=body, timeout=60).json()["generation_settings"]
    assert (given["temperature"], given["n_predict"]) == (0, 2)
    assert given["seed"] != 7


def test_mistakes_in_routes_are_refused_with_their_line(server: Stack) -> None:
    tree = {
        "mullama": "v1",
        "models": {"a": "builtin:tiny"},
        "routes": {
            "x": {"to": "a", "fallback": ["y"]},
            "y": {"to": "a", "fallback": ["x"]},
            "none": {"to": [{"model": "a", "weight": 0}]},
        },
    }
    (server.home / "wrong.yaml").write_text(json.dumps(tree))
    shown = server.run("validate", "-f", "wrong.yaml", code=4).stderr
    assert "wrong.yaml:1:" in shown
    assert "routes.none" in shown
    assert "circle" in shown
