"""`mullama pull` and `run` with a hub on loopback: progress, JSON output, updates and errors."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack, tiny_variant
from tests.stub_hub import Cut, Drip, StubHub, sha256

# The built-in model itself would be used from where it is.
WEIGHTS, OTHER = tiny_variant(1), tiny_variant(2)
SOURCE = "hf:org/tiny-GGUF:Q8_0"


@pytest.fixture
def hub(hub: StubHub) -> StubHub:
    hub.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": WEIGHTS})
    return hub


@pytest.fixture
def online(online: Stack) -> Stack:
    online.write({"own": {"from": "builtin:tiny"}})
    return online


def test_a_person_sees_bytes_speed_and_the_time_left(online: Stack, hub: StubHub) -> None:
    hub.script("tiny-Q8_0.gguf", Drip(0.1, 2**16))
    with pty_session(["pull", SOURCE, "--name", "t"], online.home, **online.env) as session:
        session.read_until("downloading tiny-Q8_0.gguf")
        session.read_until(" of 5.8 MiB, ")
        session.read_until("/s, ")
        session.read_until(" s left")
        hub.release()
        assert session.finish() == 0
    assert "pulled t; try: mullama run t" in session.seen


def test_a_script_reads_json_and_a_quiet_pull_prints_nothing(online: Stack, hub: StubHub) -> None:
    online.run("daemon", "start")
    hub.script("tiny-Q8_0.gguf", Cut(2 * 2**20))
    lines = [json.loads(line) for line in online.run("pull", SOURCE, "--name", "t", "--json").stdout.splitlines()]
    assert lines[-1] == {"status": "success"}
    of_file = [line for line in lines if line.get("file") == "tiny-Q8_0.gguf"]
    assert of_file[-1]["completed"] == of_file[-1]["total"] == len(WEIGHTS)
    assert any(line["phase"] == "retrying" and line["message"] for line in of_file)
    assert max(line.get("resumed", 0) for line in of_file) >= 2**20

    done = online.run("pull", SOURCE, "--name", "t", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")


def test_the_stream_of_ollama_has_the_same_bytes(online: Stack) -> None:
    online.run("daemon", "start")
    with httpx.stream("POST", f"{online.url}/api/pull", json={"model": SOURCE}, timeout=60) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}
    assert max(line.get("completed", 0) for line in lines) == len(WEIGHTS)
    assert {line["digest"] for line in lines if line.get("digest")} >= {f"sha256:{sha256(WEIGHTS)}"}


def test_a_forced_pull_finds_new_weights_and_mends_broken_ones(online: Stack, hub: StubHub) -> None:
    online.run("pull", SOURCE, "--name", "t")
    first = online.json("show", "t", "--json")
    hub.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": OTHER}, commit="b" * 40)

    online.run("pull", SOURCE, "--name", "t")
    assert online.json("show", "t", "--json")["digest"] == first["digest"]
    online.run("pull", SOURCE, "--name", "t", "--force")
    second = online.json("show", "t", "--json")
    assert second["digest"] == f"sha256:{sha256(OTHER)}"

    stored = Path(second["paths"][0])
    stored.chmod(0o600)
    stored.write_bytes(WEIGHTS)
    online.run("pull", SOURCE, "--name", "t", "--force")
    assert stored.read_bytes() == OTHER


def test_a_name_that_is_taken_keeps_its_source_unless_it_is_ones_own(online: Stack) -> None:
    online.run("pull", "builtin:tiny", "--name", "t")
    online.run("pull", SOURCE, "--name", "t")
    assert online.json("show", "t", "--json")["source"] == SOURCE
    refused = online.run("pull", SOURCE, "--name", "own", code=10)
    assert "own is declared in" in refused.stderr
    online.run("pull", "own")


def test_run_downloads_a_source(online: Stack) -> None:
    assert online.run("run", SOURCE, "Hello", "--think=false", "-n", "3", "-c", "256").stdout.strip()
    (made,) = {m["name"] for m in online.json("list", "--json")["models"]} - {"own"}
    assert online.json("show", made, "--json")["context"] == 256


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("hf:org/tiny-GGUF:Q2_K", 3, "Q8_0"),
        ("hf:org/nothing", 3, "org/nothing"),
        ("qwen2.5:7bb", 3, "did you mean qwen2.5:7b"),
        ("./absent.gguf", 3, "absent.gguf does not exist"),
    ],
)
def test_an_error_names_what_can_be_pulled(online: Stack, source: str, code: int, message: str) -> None:
    assert message in online.run("pull", source, code=code).stderr
