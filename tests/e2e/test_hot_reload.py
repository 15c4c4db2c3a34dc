"""Reloads under load: nothing fails, nothing is cut, and every request is answered by exactly one revision."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack, eventually, replace_file
from tests.e2e.stream_load import Load, reload

CLIENTS = 4
LETTERS = "ABCDEFGH"


def script(path: Path, letter: str) -> None:
    """A script that answers with one letter, many times."""
    replace_file(path, json.dumps({"rules": [{"when": "go", "say": letter * 60}]}))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("edits", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_edits_of_every_cost_lose_no_request_and_mix_no_answer(stack: Stack, edits: int) -> None:
    """Live, context and weights changes in a random order, under constant streaming load."""
    chosen = random.Random(7)
    source = stack.home / "demo.script.json"
    script(source, "A")
    model: dict[str, Any] = {"from": "./demo.script.json", "limits": {"queue": 100}}
    stack.write({"demo": model})
    stack.serve()
    url = stack.ready()
    load = Load(url, "demo", CLIENTS)

    for number in range(edits):
        match chosen.choice(["live", "context", "weights", "files"]):
            case "live":
                model["system"] = f"Edit {number}."
            case "context":
                model["context"] = {"size": 1024 + number}
            case "weights":
                model["memory"] = {"mmap": number % 2 == 0}
            case "files":
                source = stack.home / f"demo{number}.script.json"
                script(source, chosen.choice(LETTERS))
                model["from"] = f"./{source.name}"
        stack.write({"demo": model})
        reload(url)
    load.stop()

    assert load.failures == []
    assert len(load.texts) > edits / 4
    mixed = [text for text in load.texts if len(set(text)) != 1]
    assert mixed == []
    status = stack.status()
    assert status["generation"] > edits * 0.8, "each edit that changes something is one, whether asked for or watched"
    assert status["state"] == "ready"
    assert len(status["workers"]) == 1


def test_edits_of_a_real_model_lose_no_request(stack: Stack) -> None:
    """The same with llama.cpp: contexts and weights are replaced beside the running ones."""
    base: dict[str, Any] = {"from": "builtin:tiny", "limits": {"queue": 100}}
    stack.write({"demo": base})
    stack.serve()
    url = stack.ready()
    load = Load(url, "demo", 2)

    for number in range(6):
        kinds: list[dict[str, Any]] = [
            {"system": f"Edit {number}."},
            {"context": {"size": 512 + 8 * number}},
            {"memory": {"mmap": number == 5}},
        ]
        stack.write({"demo": base | kinds[number % 3]})
        reload(url)
    load.stop()

    assert load.failures == []
    assert len(load.texts) >= 4
    assert len(stack.status()["workers"]) == 1


WRITTEN_SLOWLY = {
    "smallest": "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels:\n  demo: builtin:tiny\n",
    "several": (
        "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels:\n"
        "  demo:\n    from: builtin:tiny\n    system: You are brief.\n"
        "  second:\n    like: demo\n    context: {size: 512}\n  third: {like: demo}\n"
        "routes:\n  default: demo\n"
    ),
}
PACE = 0.45  # seconds between two writes: long enough for each to settle and be acted on, too short for a removal


@pytest.mark.parametrize("name", WRITTEN_SLOWLY)
def test_a_manifest_that_is_written_slowly_in_place_unloads_nothing_and_breaks_nothing(stack: Stack, name: str) -> None:
    """Half a manifest is mostly valid and shorter; every prefix is in the file for long enough to be read."""
    text = WRITTEN_SLOWLY[name]
    stack.manifest.write_text(text)
    server = stack.serve()
    url = stack.ready()
    workers = stack.status()["workers"]

    def served() -> list[str]:
        return sorted(m["id"] for m in httpx.get(f"{url}/v1/models", timeout=10).json()["data"])

    everything, seen = served(), []
    with stack.manifest.open("r+") as file:
        file.truncate(0)
        for start in range(0, len(text), 12):
            file.write(text[start : start + 12])
            file.flush()
            time.sleep(PACE)
            seen.append(served())

    assert seen == [everything] * len(seen)
    eventually(lambda: stack.status()["state"] == "ready", stack.log)
    assert stack.status()["workers"] == workers
    assert server.poll() is None
    events = [json.loads(line) for line in stack.run("events", "-f", stack.name, "--json").stdout.splitlines()]
    kinds = {event["kind"] for event in events}
    assert "invalid-manifest" in kinds, "the prefixes were looked at"
    assert "watch-failed" not in kinds
    stack.run("diff", "-f", stack.name, code=0)


def test_a_deleted_manifest_leaves_everything_serving(stack: Stack) -> None:
    stack.serve()
    url = stack.ready()

    stack.manifest.unlink()

    def missing() -> bool:
        return any(
            c["reason"] == "ManifestMissing" for c in httpx.get(f"{url}/api/v1/status", timeout=60).json()["conditions"]
        )

    eventually(missing, stack.log)
    assert [m["id"] for m in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]] == ["demo"]
    stack.write()
    eventually(lambda: httpx.get(f"{url}/api/v1/status", timeout=60).json()["state"] == "ready", stack.log)


def test_a_file_that_would_unload_more_than_half_is_held_until_apply(stack: Stack) -> None:
    stack.write({"demo": {"from": "builtin:tiny"}, "second": {"like": "demo"}})
    stack.serve()
    url = stack.ready()

    stack.write({"other": {"from": "builtin:tiny"}})

    def held() -> bool:
        conditions = httpx.get(f"{url}/api/v1/status", timeout=60).json()["conditions"]
        return any(c["reason"] == "Held" and "2 of 2" in c["message"] for c in conditions)

    eventually(held, stack.log)
    assert {m["id"] for m in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]} == {"demo", "second"}
    stack.apply()
    assert [m["id"] for m in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]] == ["other"]


def test_a_config_map_swap_of_symlinks_is_followed(stack: Stack) -> None:
    """Mounted configuration is a link to a link that is swapped; the file's own name never changes."""
    for number in (1, 2):
        folder = stack.home / f"..{number}"
        folder.mkdir()
        (folder / "mullama.yaml").write_text(
            "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels: {demo: {from: builtin:tiny, "
            f"description: version {number}}}}}\n"
        )
    data = stack.home / "..data"
    data.symlink_to("..1")
    stack.manifest.unlink()
    stack.manifest.symlink_to("..data/mullama.yaml")
    stack.serve()
    url = stack.ready()

    swap = stack.home / "..swap"
    swap.symlink_to("..2")
    swap.replace(data)

    def followed() -> bool:
        models = httpx.get(f"{url}/api/v1/stack", timeout=60).json()["manifest"]["models"]
        return bool(models["demo"]["description"] == "version 2")

    eventually(followed, stack.log)
