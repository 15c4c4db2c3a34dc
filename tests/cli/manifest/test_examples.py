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
UNIT = (EXAMPLES / "systemd" / "mullama.service").read_text()

LINES = [
    *(step["run"] for step in WORKFLOW["jobs"]["diff"]["steps"] if step.get("run", "").startswith("mullama ")),
    *re.findall(r"^ExecStart(?:Pre)?=/opt/mullama/bin/(mullama .*)$", UNIT, re.MULTILINE),
]


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_is_understood(line: str) -> None:
    name, *rest = shlex.split(line.split(" > ")[0])[1:]
    (command,) = [c for c in COMMANDS if c.name == name]
    load(command)[1].parse_args(rest)


def test_both_examples_hold_commands() -> None:
    assert len(LINES) >= 5
