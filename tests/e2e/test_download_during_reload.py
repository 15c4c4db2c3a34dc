"""A saved manifest that needs a download: the other models reload at once, and the newest save wins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ggufs
from tests.e2e.stack import COMMAND, Stack, eventually, serving
from tests.stub_hub import Hold, StubHub

DATA = ggufs.model().bytes()
BIG: dict[str, Any] = {"from": "hf:org/m", "residency": {"load": "on_demand"}}


@pytest.fixture
def hub(hub: StubHub) -> StubHub:
    hub.repo("org/m", {"m-Q8_0.gguf": DATA})
    hub.script("m-Q8_0.gguf", Hold(1000))
    return hub


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Stack]:
    (tmp_path / "a.script.json").write_text(json.dumps({"default": "echo"}))
    with serving(tmp_path, {"a": small(9)}) as stack:
        yield stack


def small(length: int) -> dict[str, Any]:
    return {"from": "./a.script.json", "parameters": {"num_predict": length}}


def save(stack: Stack, hub: StubHub, models: dict[str, Any]) -> None:
    stack.write(models, sources={"hf": {"endpoint": hub.url}})


def length(stack: Stack) -> int:
    body = {"model": "a", "messages": [{"role": "user", "content": "count to 30"}]}
    answer = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=20).json()
    return int(answer["usage"]["completion_tokens"])


def models(stack: Stack) -> list[str]:
    return sorted(model["id"] for model in httpx.get(f"{stack.url}/v1/models", timeout=20).json()["data"])


def test_saves_are_followed_while_a_file_is_fetched(served: Stack, hub: StubHub) -> None:
    save(served, hub, {"a": small(8), "big": BIG})
    assert hub.wait_sent(1000)
    eventually(lambda: length(served) == 8, served.log)

    save(served, hub, {"a": small(3), "big": {**BIG, "description": "the newest"}})
    eventually(lambda: length(served) == 3, served.log)
    assert models(served) == ["a"]
    served.run("diff", "-f", served.name, code=2)
    reloaded = httpx.post(f"{served.url}/api/v1/reload", json={}, timeout=20).json()
    assert "until the files of big are downloaded" in reloaded["message"]

    hub.release()
    eventually(lambda: models(served) == ["a", "big"], served.log)
    served.run("diff", "-f", served.name)
    assert served.json("config", "-f", served.name, "--format", "json")["models"]["big"]["description"] == "the newest"
    assert hub.sent == len(DATA)


def test_taking_the_model_out_again_ends_its_fetch(served: Stack, hub: StubHub) -> None:
    save(served, hub, {"a": small(9), "big": BIG})
    assert hub.wait_sent(1000)

    served.write({"a": small(9)})

    eventually(lambda: httpx.get(f"{served.url}/api/v1/status", timeout=20).json()["state"] == "ready", served.log)
    assert models(served) == ["a"]
    assert hub.sent == 1000


def test_a_save_during_an_apply_ends_the_apply_and_wins(served: Stack, hub: StubHub) -> None:
    save(served, hub, {"a": small(9), "big": BIG})
    applying = subprocess.Popen(
        [*COMMAND, "apply", "-f", served.name, "--yes"], env={**served.env, "PYTHONUNBUFFERED": "1"}, cwd=served.home,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert applying.stdout is not None
    assert any("fetching files" in line for line in applying.stdout), "the server has what it is to apply"
    assert hub.wait_sent(1000)
    eventually(lambda: "Pulling" in json.dumps(served.status()["conditions"]), served.log)

    save(served, hub, {"a": small(2), "big": BIG})
    eventually(lambda: length(served) == 2, served.log)
    hub.release()

    output, _ = applying.communicate(timeout=60)
    assert applying.returncode in (0, 10), output
    eventually(lambda: models(served) == ["a", "big"], served.log)
    assert length(served) == 2
