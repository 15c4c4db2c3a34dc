"""The commands in the examples are commands that exist, with options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.main import load
from mullama.manifest.load.policy import load_policy
from tests.cli.conftest import Ran

Run = Callable[..., Ran]

EXAMPLES = Path(__file__).parents[3] / "examples"
CI = EXAMPLES / "ci"
PIPELINES = [yaml.safe_load(path.read_text()) for path in sorted(CI.glob("*.yml"))]
HOOKS: list[dict[str, Any]] = yaml.safe_load((EXAMPLES.parent / ".pre-commit-hooks.yaml").read_text())
SYSTEMD_PAGE = (EXAMPLES.parent / "docs/how-to/systemd.md").read_text()
UNIT = (EXAMPLES / "systemd" / "mullama.service").read_text()


def scripts(tree: object) -> Iterator[str]:
    """Yield the shell scripts of a workflow, an action or a pipeline."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("run", "script", "before_script"):
                yield from (value if isinstance(value, list) else [value])
            else:
                yield from scripts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from scripts(value)


def commands(script: str) -> Iterator[str]:
    """Yield the mullama commands of a shell script, without redirections and what follows them."""
    for line in script.splitlines():
        if line.strip().startswith("mullama "):
            command = re.split(r" > | \|\| ", line.strip())[0]
            yield re.sub(r"\$\{[A-Z]+:\+(.*?)\}", r"\1", command)


LINES = [
    *(
        line
        for path in CI.glob("*.yml")
        for script in scripts(yaml.safe_load(path.read_text()))
        for line in commands(script)
    ),
    *(hook["entry"] for hook in HOOKS),
    *re.findall(r"^ExecStart=/opt/mullama/bin/(mullama .*)$", UNIT, re.MULTILINE),
    *re.findall(r"^    (mullama .*)$", SYSTEMD_PAGE, re.MULTILINE),
]


@pytest.mark.parametrize("line", LINES)
def test_each_command_line_is_understood(line: str) -> None:
    # A variable of the script stands for a kind of change here, where the parser knows the values.
    name, *rest = shlex.split(line.replace("$FAIL_ON", "pause,remove"))[1:]
    (command,) = [c for c in COMMANDS if c.name == name]
    load(command)[1].parse_args(rest)


@pytest.mark.parametrize("path", sorted(CI.glob("*.yml")), ids=lambda path: path.name)
def test_the_scripts_of_ci_are_shell(path: Path) -> None:
    found = list(scripts(yaml.safe_load(path.read_text())))
    done = subprocess.run(["bash", "-n"], input="\n".join(found), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_policy_of_the_examples_is_valid() -> None:
    assert load_policy(str(CI / "policy.yaml"), "policy.yaml").pinned


def test_the_comment_on_a_pull_request_is_found_by_its_marker(run: Run, tmp_path: Path) -> None:
    """The action and the pipeline take the second line of the Markdown as the marker of their own comment."""
    (tmp_path / "mullama.yaml").write_text("mullama: v1\nmodels: {chat: builtin:tiny}\n")
    marker = run("diff", "--format", "markdown", "--exit-zero").out.splitlines()[1]
    assert marker == "<!-- mullama:mullama.yaml -->"
    for name in ("action.yml", "gitlab-ci.yml"):
        assert "sed -n 2p plan.md" in (CI / name).read_text()


def test_the_examples_hold_commands() -> None:
    assert len(LINES) >= 15


def test_the_how_to_has_the_unit_of_the_examples() -> None:
    assert UNIT[UNIT.index("[Unit]") :] in SYSTEMD_PAGE


def test_a_unit_with_a_state_folder_of_its_own_is_asked_at_its_address() -> None:
    """Commands of another user have another state folder and would find no server."""
    assert "MULLAMA_STATE_DIR=" in UNIT
    found = re.findall(r"^    (?:sudo )?(.*mullama (?:wait|status).*)$", SYSTEMD_PAGE, re.MULTILINE)
    assert found
    assert all("--host" in command or "MULLAMA_STATE_DIR=" in command for command in found)
