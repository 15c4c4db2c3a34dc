"""The generated files are what the code generates, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.exit_codes import MEANINGS
from mullama.cli.app.main import load
from mullama.cli.reference_docs import ENVIRONMENT, cli_page, pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", pages())
def test_the_committed_file_is_fresh(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_option_of_every_command_is_on_the_page() -> None:
    page = cli_page()
    for command in COMMANDS:
        section = page.split(f"\n## mullama {command.name}\n")[1].split("\n## ")[0]
        for action in load(command)[1]._actions:
            if action.help != "==SUPPRESS==" and action.dest != "help":
                assert all(f"`{name}" in section for name in action.option_strings)


def test_every_exit_code_and_variable_is_on_the_page() -> None:
    page = cli_page()
    assert all(f"\n| {code} |" in page for code in MEANINGS)
    assert all(f"`{name}`" in page for name in ENVIRONMENT)


def test_every_variable_of_ours_that_the_code_reads_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mullama").rglob("*.py"))
    read = set(re.findall(r"""env\w*(?:\.get\(|\[)["'](MULLAMA_[A-Z_]+)["']""", sources))
    assert "MULLAMA_STATE_DIR" in read
    assert read <= set(ENVIRONMENT)
