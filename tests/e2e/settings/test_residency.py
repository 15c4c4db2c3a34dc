"""Models that share too little memory or a group on a real server: one makes room, and comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually, serving

ON_DEMAND = {"load": "on_demand", "ttl": "1s"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("residency")
    (home / "a.script.json").write_text(json.dumps({"rules": [{"when": ".", "say": "yes"}]}))
    with serving(home, models(small="when_room", large=ON_DEMAND), hardware={"budget": {"ram": "700KiB"}}) as stack:
        yield stack


def models(**residency: Any) -> dict[str, Any]:
    """Scripted models of 512 KiB over weights of their own."""
    known = {name: {"load": load} if isinstance(load, str) else load for name, load in residency.items()}
    return {
        name: {"from": "./a.script.json", "residency": load, "context": {"size": 1000 + number}}
        for number, (name, load) in enumerate(known.items())
    }


def loaded(server: Stack) -> set[str]:
    return {model["name"] for model in server.status()["models"] if model["state"] == "ready"}


def ask(server: Stack, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code


def test_a_model_is_loaded_while_there_is_room(server: Stack) -> None:
    eventually(lambda: loaded(server) == {"small"}, server.log)
    assert ask(server, "large") == 200
    assert loaded(server) == {"large"}
    eventually(lambda: loaded(server) == {"small"}, server.log)  # after the time to live of the large one
    events = server.run("events", "-f", server.name).stdout
    assert "small was unloaded to make room for large" in events


def test_a_group_holds_its_bound_while_its_models_are_asked_at_once(server: Stack) -> None:
    names = ("x", "y", "z")
    stay = {"load": "on_demand"}
    groups = {"one": {"models": [*names], "max": 1}}
    server.write(models(x=stay, y=stay, z=stay), groups=groups, server={"listen": ["127.0.0.1:0"]})
    server.apply()
    seen = [loaded(server)]
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(ask, server, name) for name in names * 2]
        while not all(one.done() for one in asked):
            seen.append(loaded(server))
    assert [one.result() for one in asked] == [200] * 6
    assert all(len(some) <= 1 for some in seen), seen
    shown = server.run("status", "-f", server.name).stdout
    assert "group one: 1 of 1 loaded" in shown
