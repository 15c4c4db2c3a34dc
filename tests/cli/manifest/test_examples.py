"""The commands in the examples are commands that exist, with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.main import load

EXAMPLES = Path(__file__).parents[3] / "examples"
WORKFLOW: dict[str, Any] = yaml.safe_load((EXAMPLES / "ci" / "mullama-diff.yml").read_text())
SYSTEMD_PAGE = (EXAMPLES.parent / "docs/how-to/systemd.md").read_text()
UNIT = (EXAMPLES / "systemd" / "mullama.service").read_text()

LINES = [
    *(step["run"] for step in WORKFLOW["jobs"]["diff"]["steps"] if step.get("run", "").startswith("mullama ")),
    *re.findall(r"^ExecStart=/opt/mullama/bin/(mullama .*)$", UNIT, re.MULTILINE),
    *re.findall(r"^    (mullama .*)$", SYSTEMD_PAGE, re.MULTILINE),
]


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_is_understood(line: str) -> None:
    name, *rest = shlex.split(line.split(" > ")[0])[1:]
    (command,) = [c for c in COMMANDS if c.name == name]
    load(command)[1].parse_args(rest)


def test_both_examples_hold_commands() -> None:
    assert len(LINES) >= 5


def test_the_how_to_has_the_unit_of_the_examples() -> None:
    assert UNIT[UNIT.index("[Unit]") :] in SYSTEMD_PAGE


def test_a_unit_with_a_state_folder_of_its_own_is_asked_at_its_address() -> None:
    """Commands of another user have another state folder and would find no server."""
    assert "MULLAMA_STATE_DIR=" in UNIT
    commands = re.findall(r"^    (?:sudo )?(.*mullama (?:wait|status).*)$", SYSTEMD_PAGE, re.MULTILINE)
    assert commands
    assert all("--host" in command or "MULLAMA_STATE_DIR=" in command for command in commands)
