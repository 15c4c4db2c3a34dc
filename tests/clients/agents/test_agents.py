"""Coding agents do a task over a server, started by `launch` and configured by `clients apply` (`make agents`).

A scripted model asks for a tool of the agent that reads a file, and answers with the word in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.stack import COMMAND, Stack, stack_in

pytestmark = pytest.mark.agents

SECONDS = 90
# The result of a tool becomes a message of the user, so that the rules of the script see it.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    '<tool_call>{"name": …, "arguments": {…}}</tool_call><|im_end|>\n{% endif %}'
    "{%- for m in messages %}{{ '<|im_start|>' ~ ('user' if m.role == 'tool' else m.role) ~ '\\n' }}"
    "{{ 'TOOL RESULT: ' if m.role == 'tool' }}{{ m.content or '' }}"
    "{%- for call in m.tool_calls or [] %}{{ '<tool_call>\\n' ~ (call.function | tojson) ~ '\\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TASK = "Read the file word.txt for"


class Agent(NamedTuple):
    """An agent, its command for a single task, and the call that reads the file."""

    name: str
    program: str
    arguments: tuple[str, ...]
    tool: str
    call: dict[str, object]
    model: tuple[str, ...] = ()
    """Options that select the model without `launch`."""


AGENTS = [
    Agent("claude-code", "claude", ("-p", "--allowedTools", "Bash(cat:*)", "--"), "Bash",
          {"command": "cat word.txt", "description": "read the file"}),
    Agent("codex", "codex", ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
          "exec_command", {"cmd": "cat word.txt"}),
    Agent("opencode", "opencode", ("run",), "bash", {"command": "cat word.txt", "description": "read the file"}),
    Agent("cline", "cline", (), "run_commands", {"commands": ["cat word.txt"]}),
    Agent("continue", "cn", ("-p", "--auto"), "Bash", {"command": "cat word.txt"}),
    Agent("llm", "llm", ("--functions", 'def read_word() -> str:\n    "Read."\n    return open("word.txt").read()'),
          "read_word", {}, ("-m", "mullama/agent")),
]  # fmt: skip


def rules() -> list[dict[str, object]]:
    """Return the rules of the script: the answer to a result, and a call for the task of each agent."""
    calls: list[dict[str, object]] = [
        {"when": f"{TASK} {agent.name}\\b", "call": {"name": agent.tool, "arguments": agent.call}} for agent in AGENTS
    ]
    return [
        {"when": r"TOOL RESULT: [\s\S]*blue-heron", "say": "The word is BLUE-HERON."},
        {"when": "TOOL RESULT: ", "say": "The tool failed."},
        *calls,
        {"when": "write answer.txt", "say": "answer.txt\n```\nBLUE-HERON\n```\n"},
    ]


@contextlib.contextmanager
def served(home: Path, key: dict[str, str] | None = None, **blocks: object) -> Iterator[Stack]:
    """A server with the scripted model, and the files of all agents. key: their reference to an API key."""
    with stack_in(home, forks=False) as stack:
        stack.variables |= {"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        stack.variables["TEAM_KEY"] = "sk-team"
        script = {"constraints": True, "template": TEMPLATE, "rules": rules()}
        (stack.home / "agent.script.json").write_text(json.dumps(script))
        (stack.home / "word.txt").write_text("blue-heron\n")
        stack.write(
            {"agent": {"from": "./agent.script.json", "context": {"size": 131072}}},
            clients={
                name: {"model": "agent", **({"key": key} if key else {})}
                for name in (*(agent.name for agent in AGENTS), "aider")
            },
            **blocks,
        )
        stack.apply()
        stack.run("clients", "apply", "--yes")
        yield stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with served(tmp_path_factory.mktemp("agents")) as stack:
        yield stack


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same with a server that demands a key, which is in the environment alone."""
    home = tmp_path_factory.mktemp("locked")
    reference = {"from_env": "TEAM_KEY"}
    with served(home, reference, auth={"keys": {"team": {"secret": reference}}}) as stack:
        yield stack


def run(stack: Stack, *words: str, home: Path | None = None) -> str:
    """Run a command to its end in the folder of the stack and return all of its output."""
    env = stack.env if home is None else {**stack.env, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
    done = subprocess.run(
        words, env=env, cwd=stack.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here: .ci/agents installs it")


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_an_agent_that_is_launched_calls_its_tool(stack: Stack, agent: Agent) -> None:
    require(agent.program)
    shown = run(stack, *COMMAND, "launch", agent.name, "--", *agent.arguments, f"{TASK} {agent.name}")
    assert "BLUE-HERON" in shown


@pytest.mark.parametrize("name", ["claude-code", "codex", "opencode"])
def test_no_file_is_needed_for_a_launch(stack: Stack, name: str, tmp_path: Path) -> None:
    agent = next(agent for agent in AGENTS if agent.name == name)
    require(agent.program)
    words = (*COMMAND, "launch", name, "--host", stack.url, "-m", "agent", "--", *agent.arguments, f"{TASK} {name}")
    assert "BLUE-HERON" in run(stack, *words, home=tmp_path)


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_an_agent_reads_its_server_from_its_file(stack: Stack, agent: Agent) -> None:
    require(agent.program)
    extra = ("-P", "openai-compatible") if agent.name == "cline" else agent.model
    assert "BLUE-HERON" in run(stack, agent.program, *extra, *agent.arguments, f"{TASK} {agent.name}")


@pytest.mark.parametrize("name", ["claude-code", "codex", "opencode", "continue"])
def test_an_agent_finds_the_key_by_its_reference(locked: Stack, name: str) -> None:
    agent = next(agent for agent in AGENTS if agent.name == name)
    require(agent.program)
    assert "BLUE-HERON" in run(locked, agent.program, *agent.arguments, f"{TASK} {name}")


@pytest.mark.parametrize("name", ["claude-code", "codex", "opencode", "llm"])
def test_a_launch_gives_an_agent_the_key(locked: Stack, name: str) -> None:
    agent = next(agent for agent in AGENTS if agent.name == name)
    require(agent.program)
    shown = run(locked, *COMMAND, "launch", name, "--", *agent.arguments, f"{TASK} {name}")
    assert "BLUE-HERON" in shown


@pytest.mark.parametrize("how", ["launch", "file"])
def test_aider_edits_a_file(stack: Stack, how: str) -> None:
    require("aider")
    (stack.home / "answer.txt").unlink(missing_ok=True)
    words = ("--yes-always", "--no-git", "--no-check-update", "--analytics-disable", "--message", "write answer.txt")
    run(stack, *((*COMMAND, "launch", "aider", "--") if how == "launch" else ("aider",)), *words)
    assert (stack.home / "answer.txt").read_text().strip() == "BLUE-HERON"


def test_the_files_are_as_declared_after_the_agents_have_run(stack: Stack) -> None:
    stack.run("clients", "diff", code=0)
