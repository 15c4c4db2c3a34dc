"""pull and run against a hub on loopback: what a person sees, what a script reads, and what comes again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.pty_session import person
from tests.e2e.test_lock import Online
from tests.stub_hub import Cut, Drip, StubHub, sha256

# Not the built-in model to the byte, which would be used where it is.
BUILTIN = (Path(__file__).parents[2] / "mullama/sources/builtin_models/tiny.gguf").read_bytes()
TINY, OTHER = (BUILTIN[:-1] + bytes([BUILTIN[-1] ^ flip]) for flip in (1, 2))
SOURCE = "hf:org/tiny-GGUF:Q8_0"


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with StubHub() as found:
        found.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": TINY})
        yield found


@pytest.fixture
def home(hub: StubHub, tmp_path: Path) -> Iterator[Online]:
    stack = Online(tmp_path)
    stack.endpoint = hub.url
    try:
        stack.write({"own": {"from": "builtin:tiny"}})
        yield stack
    finally:
        stack.close()


def test_a_person_sees_bytes_speed_and_the_time_left(home: Online, hub: StubHub) -> None:
    hub.script("tiny-Q8_0.gguf", Drip(0.1, 2**16))
    with person(["pull", SOURCE, "--name", "t"], home.home, **home.env) as someone:
        someone.read_until("downloading tiny-Q8_0.gguf")
        someone.read_until(" of 5.8 MiB, ")
        someone.read_until("/s, ")
        someone.read_until(" s left")
        hub.release()
        assert someone.finish() == 0
    assert "pulled t; try: mullama run t" in someone.seen


def test_a_script_reads_json_and_a_quiet_pull_says_nothing(home: Online, hub: StubHub) -> None:
    home.run("daemon", "start")
    hub.script("tiny-Q8_0.gguf", Cut(2 * 2**20))
    told = [json.loads(line) for line in home.run("pull", SOURCE, "--name", "t", "--json").stdout.splitlines()]
    assert told[-1] == {"status": "success"}
    of_file = [line for line in told if line.get("file") == "tiny-Q8_0.gguf"]
    assert of_file[-1]["completed"] == of_file[-1]["total"] == len(TINY)
    assert any(line["phase"] == "retrying" and line["message"] for line in of_file)
    assert max(line.get("resumed", 0) for line in of_file) >= 2**20

    done = home.run("pull", SOURCE, "--name", "t", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")


def test_the_stream_of_ollama_tells_the_same_bytes(home: Online) -> None:
    home.run("daemon", "start")
    with httpx.stream("POST", f"{home.url}/api/pull", json={"model": SOURCE}, timeout=60) as answer:
        told = [json.loads(line) for line in answer.iter_lines()]
    assert told[0] == {"status": "pulling manifest"}
    assert told[-1] == {"status": "success"}
    assert max(line.get("completed", 0) for line in told) == len(TINY)
    assert {line["digest"] for line in told if line.get("digest")} >= {f"sha256:{sha256(TINY)}"}


def test_a_forced_pull_finds_new_weights_and_mends_broken_ones(home: Online, hub: StubHub) -> None:
    home.run("pull", SOURCE, "--name", "t")
    first = home.json("show", "t", "--json")
    hub.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": OTHER}, commit="b" * 40)

    home.run("pull", SOURCE, "--name", "t")
    assert home.json("show", "t", "--json")["digest"] == first["digest"]
    home.run("pull", SOURCE, "--name", "t", "--force")
    second = home.json("show", "t", "--json")
    assert second["digest"] == f"sha256:{sha256(OTHER)}"

    stored = Path(second["paths"][0])
    stored.chmod(0o600)
    stored.write_bytes(TINY)
    home.run("pull", SOURCE, "--name", "t", "--force")
    assert stored.read_bytes() == OTHER


def test_a_name_that_is_taken_keeps_its_source_unless_it_is_ones_own(home: Online) -> None:
    home.run("pull", "builtin:tiny", "--name", "t")
    home.run("pull", SOURCE, "--name", "t")
    assert home.json("show", "t", "--json")["source"] == SOURCE
    refused = home.run("pull", SOURCE, "--name", "own", code=10)
    assert "own is declared in" in refused.stderr
    home.run("pull", "own")


def test_run_fetches_what_it_is_asked_to_run(home: Online) -> None:
    assert home.run("run", SOURCE, "Hello", "-n", "3", "-c", "256").stdout.strip()
    (made,) = {m["name"] for m in home.json("list", "--json")["models"]} - {"own"}
    assert home.json("show", made, "--json")["context"] == 256


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("hf:org/tiny-GGUF:Q2_K", 3, "Q8_0"),
        ("hf:org/nothing", 3, "org/nothing"),
        ("qwen2.5:7bb", 3, "did you mean qwen2.5:7b"),
        ("./absent.gguf", 3, "absent.gguf does not exist"),
    ],
)
def test_what_cannot_be_pulled_says_what_can(home: Online, source: str, code: int, said: str) -> None:
    assert said in home.run("pull", source, code=code).stderr
