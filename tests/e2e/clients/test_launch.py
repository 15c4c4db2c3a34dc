"""`mullama launch`: the agent runs in place of the command, with the server of the folder and its own exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import COMMAND, SECONDS, Stack, eventually, stack_in

# Stands for every agent: writes down how it was started, asks the server, and ends with the code of its last argument.
AGENT = """#!{python}
import json, os, pathlib, signal, sys, time, urllib.request
names = ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "TEAM_KEY")
seen = {{"words": sys.argv[1:], "env": {{n: os.environ[n] for n in names if n in os.environ}}}}
seen |= {{"pid": os.getpid(), "proxied": os.environ.get("NO_PROXY")}}
pathlib.Path("seen.json").write_text(json.dumps(seen))
if sys.argv[-1] == "wait":
    pathlib.Path("waits").touch()
    signal.pause()
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("claude", "codex", "llm"):
        (bin / name).write_text(AGENT.format(python=sys.executable))
        (bin / name).chmod(0o755)
    # An exec would replace a process that was forked from the tests, so each command has an interpreter of its own.
    with stack_in(tmp_path, forks=False) as stack:
        stack.variables["PATH"] = f"{bin}:/usr/bin:/bin"
        (tmp_path / "agent.script.json").write_text(json.dumps({"constraints": True}))
        (tmp_path / "mute.script.json").write_text(json.dumps({"template": "{{ messages[-1].content }}"}))
        yield stack


MODELS: dict[str, Any] = {
    "agent": {"from": "./agent.script.json", "context": {"size": 4096}},
    "mute": {"from": "./mute.script.json"},
}


def seen(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stack.home / "seen.json").read_text())
    return found


def test_an_agent_is_started_with_a_server_and_ends_with_its_own_code(stack: Stack) -> None:
    stack.write(MODELS, clients={"claude-code": "agent"})
    stack.variables["ANTHROPIC_API_KEY"] = "of another server"

    done = stack.run("launch", "claude-code", "--", "-p", "hello there", "7", code=7)

    assert "server started" in done.stderr
    assert "warning: the context of agent has 4096 tokens" in done.stderr
    assert "write models.agent.context.size: 65536" in done.stderr
    found = seen(stack)
    assert found["words"] == ["--model", "agent", "-p", "hello there", "7"]
    assert found["proxied"] == "127.0.0.1"  # the tests have a proxy in their environment
    assert found["env"] == {"ANTHROPIC_BASE_URL": stack.url, "ANTHROPIC_AUTH_TOKEN": "none"}
    assert httpx.get(f"{found['env']['ANTHROPIC_BASE_URL']}/v1/models").status_code == 200
    assert not (stack.home / ".claude").exists()


def test_signals_reach_the_agent(stack: Stack) -> None:
    stack.write(MODELS)
    process = subprocess.Popen(
        [*COMMAND, "launch", "codex", "-m", "agent", "--", "wait"], env=stack.env, cwd=stack.home,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually((stack.home / "waits").exists)
        assert seen(stack)["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_a_model_that_an_agent_cannot_use_is_refused(stack: Stack) -> None:
    stack.write(MODELS)
    stack.apply()
    for arguments, code, message in (
        (("codex", "-m", "mute"), 4, "mute calls no tools, and Codex works by tools"),
        (("codex", "-m", "nobody"), 3, "nobody"),
        (("codex",), 3, "no model is named and there is no default"),
        (("aider", "-m", "agent"), 3, "Aider is not here: there is no aider in PATH"),
        (("codez", "-m", "agent"), 4, "did you mean codex"),
        (("codex", "--yolo"), 4, "the options of an agent stand after --"),
        (("llm", "-m", "mute"), 9, "extra-openai-models.yaml alone"),
    ):
        done = stack.run("launch", *arguments, code=code)
        assert message in done.stderr
    assert "pip install aider-chat" in stack.run("launch", "aider", "-m", "agent", code=3).stderr
    assert not (stack.home / "seen.json").exists()


def test_the_key_is_given_in_the_environment_and_shown_nowhere(stack: Stack) -> None:
    stack.variables["TEAM_KEY"] = "very-secret"
    stack.write(
        MODELS, clients={"codex": {"model": "agent", "key": {"from_env": "TEAM_KEY"}}},
        auth={"keys": {"team": {"secret": {"from_env": "TEAM_KEY"}}}},
    )  # fmt: skip
    stack.apply()

    shown = stack.run("launch", "codex", "--print", "--", "exec", "a b").stdout
    stack.run("launch", "codex")

    assert "very-secret" not in shown
    assert "export TEAM_KEY='***'" in shown
    assert shown.splitlines()[-1].endswith("exec 'a b'")
    assert seen(stack)["env"]["TEAM_KEY"] == "very-secret"
    assert not any("very-secret" in word for word in seen(stack)["words"])
    del stack.variables["TEAM_KEY"]
    missing = stack.run("launch", "codex", code=4).stderr
    assert "TEAM_KEY, the key of this client, is not set" in missing


def test_a_command_is_printed_without_a_server(stack: Stack) -> None:
    stack.write(MODELS, clients={"codex": {"model": "agent", "url": "http://127.0.0.1:9"}})
    shown = stack.run("launch", "codex", "--print").stdout
    assert 'base_url="http://127.0.0.1:9' in shown
    assert "model 'nope' not found" in stack.run("launch", "codex", "--print", "-m", "nope", code=3).stderr
    stack.run("status", code=11)  # none was started


def test_a_client_that_reads_only_files_starts_after_they_are_applied(stack: Stack) -> None:
    stack.write(MODELS, clients={"llm": "agent"})
    stack.apply()
    assert "mullama clients apply llm" in stack.run("launch", "llm", code=9).stderr
    stack.run("clients", "apply", "--yes")
    stack.run("launch", "llm", "--", "0")
    assert seen(stack)["words"] == ["0"]
    text = (stack.home / "config/io.datasette.llm/extra-openai-models.yaml").read_text()
    assert f"api_base: {stack.url}/v1" in text
    assert os.stat(stack.home / "config/io.datasette.llm/extra-openai-models.yaml").st_mode & 0o777 == 0o600
