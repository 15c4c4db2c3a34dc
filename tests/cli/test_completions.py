"""Completion scripts hold every command and option, and shells can read them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from mullama.cli.commands import COMMANDS
from mullama.cli.completions import SHELLS, table


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    script = SHELLS[shell](table())
    for command in table():
        assert command.names[0] in script
        for option in command.options:
            assert (option.text.lstrip("-") if shell == "fish" else option.text) in script


def test_every_command_of_the_table_is_completed() -> None:
    assert [c.names[0] for c in table()] == [c.name for c in COMMANDS]


def test_bash_completes_commands_and_options() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    script = SHELLS["bash"](table())
    ask = 'COMP_WORDS=({words}); COMP_CWORD={at}; _mullama; echo "${{COMPREPLY[@]}}"'

    def complete(*words: str) -> list[str]:
        text = script + ask.format(words=" ".join(f"'{w}'" for w in words), at=len(words) - 1)
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.split()

    assert complete("mullama", "qua") == ["quantize"]
    assert "--quantize" in complete("mullama", "create", "--q")
    assert complete("mullama", "cache", "cl") == ["clear"]


def test_fish_and_zsh_read_their_scripts_where_they_are() -> None:
    for shell in ("fish", "zsh"):
        if program := shutil.which(shell):
            subprocess.run([program, "-n"], input=SHELLS[shell](table()), text=True, check=True)
