"""The commands that a machine allows: the form of the file, and the users who may have written it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import ToolsUnavailable
from mullama.tools.host_file import VARIABLE, HostCommand, host_command

FILES = {"command": "npx", "args": ["-y", "files", "/srv"], "env": {"TOKEN": "canary"}, "cwd": "/srv"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "mullama"
    made.mkdir(mode=0o755)
    yield made
    made.chmod(0o755)


def written(folder: Path, tree: Any, mode: int = 0o644) -> dict[str, str]:
    path = folder / "mcp.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    path.chmod(mode)
    return {VARIABLE: str(path)}


def refusal(name: str, env: dict[str, str]) -> str:
    with pytest.raises(ToolsUnavailable) as caught:
        host_command(name, env)
    return str(caught.value)


def test_a_command_has_the_form_that_other_tools_write(folder: Path) -> None:
    env = written(folder, {"mcpServers": {"files": {**FILES, "timeout_ms": 9}}, "other": 1})
    found = host_command("files", env)
    assert found == HostCommand(
        command="npx", args=("-y", "files", "/srv"), env={"TOKEN": "canary"}, cwd="/srv"
    )  # fmt: skip
    assert "canary" not in repr(found)
    env = written(folder, {"mcpServers": {"one": {"command": "/bin/tool"}}})
    assert host_command("one", env) == HostCommand(command="/bin/tool")


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ("{", "is not JSON"),
        ([], "has no object mcpServers"),
        ({"mcpServers": []}, "has no object mcpServers"),
        ({"mcpServers": {"filesystem": FILES}}, "allows no command 'files' (did you mean filesystem?)"),
        ({"mcpServers": {"a": FILES, "b": FILES}}, "allows no command 'files' (it has a, b)"),
        ({"mcpServers": {"files": 3}}, "files has no command"),
        ({"mcpServers": {"files": {"url": "https://h/mcp"}}}, "has no command (a server with an address is declared"),
        ({"mcpServers": {"files": {**FILES, "disabled": True}}}, "is disabled"),
        ({"mcpServers": {"files": {**FILES, "args": "-y"}}}, "args is not a list of texts"),
        ({"mcpServers": {"files": {**FILES, "env": {"A": 1}}}}, "env is not a map of texts"),
        ({"mcpServers": {"files": {**FILES, "cwd": 1}}}, "cwd is not a text"),
        (" " * (1024**2 + 1), "has more than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(folder: Path, tree: Any, reason: str) -> None:
    text = refusal("files", written(folder, tree))
    assert reason in text
    assert "canary" not in text


def test_a_file_that_others_can_write_runs_nothing(folder: Path) -> None:
    tree = {"mcpServers": {"files": FILES}}
    for mode in (0o664, 0o646):
        assert "others can write" in refusal("files", written(folder, tree, mode))
    env = written(folder, tree)
    folder.chmod(0o777)
    assert f"others can write {folder}" in refusal("files", env)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_file_of_another_user_runs_nothing(folder: Path) -> None:
    env = written(folder, {"mcpServers": {"files": FILES}})
    os.chown(env[VARIABLE], 12345, -1)
    assert "belongs to another user" in refusal("files", env)


def test_a_machine_without_the_file_allows_nothing(folder: Path) -> None:
    text = refusal("files", {VARIABLE: str(folder / "none.json")})
    assert "does not exist, so this machine allows no commands (MULLAMA_MCP_HOST_FILE names another file)" in text
