"""The manifests of the README are valid, and its commands and files exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.cli.app.commands import COMMANDS
from tests.cli.conftest import Ran

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_manifest_is_valid(run: Callable[..., Ran], text: str) -> None:
    ran = run("validate", "-f", "-", stdin=text)
    assert (ran.code, ran.err) == (0, "")


def test_each_command_exists() -> None:
    used = set(re.findall(r"(?:\$ |`)mullama ([a-z]+)", README))
    assert used
    assert used <= {command.name for command in COMMANDS}


def test_each_verb_and_each_linked_file_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{verb}:" in makefile for verb in re.findall(r"\$ make ([a-z]+)", README))
    assert all((ROOT / target).exists() for target in re.findall(r"\]\((?!http)([^)#]+)", README))
