"""Completion scripts hold every command and option, and shells can read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mullama.cli.app.commands import COMMANDS
from mullama.cli.app.completions import SHELLS, table
from tests.cli.pty_session import pty_session


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


def test_fish_completes_commands_choices_and_options(tmp_path: Path) -> None:
    if (fish := shutil.which("fish")) is None:
        pytest.skip("no fish here")
    (tmp_path / "mullama.fish").write_text(SHELLS["fish"](table()))
    lines = ("mullama qua", "mullama cache cl", "mullama pull --qu")
    asked = "; ".join(("source mullama.fish", *(f"complete -C '{line}'" for line in lines)))
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([fish, "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["quantize", "clear", "--quiet"]


@pytest.mark.parametrize(
    ("shell", "arguments", "begin"),
    [
        ("zsh", ["-f", "-i"], "autoload -U compinit; compinit -u -D; source mullama.zsh; echo re''ady\r"),
        ("zsh", ["-f", "-i"], "fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D; echo re''ady\r"),
        ("elvish", ["-norc"], "eval (slurp < mullama.elvish); echo re''ady\r"),
    ],
)
def test_a_tab_completes_on_a_terminal(tmp_path: Path, shell: str, arguments: list[str], begin: str) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "functions").mkdir()
    (tmp_path / f"mullama.{shell}").write_text(SHELLS[shell](table()))
    (tmp_path / "functions/_mullama").write_text(SHELLS[shell](table()))
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PS1": "$ ", "TERM": "xterm"}
    with pty_session(arguments, tmp_path, program=program, **home) as session:
        session.type(begin)
        session.read_until("ready\r\n")
        session.type("mullama qua\t")
        session.read_until("ntize")
        session.type("\x15mullama cache cl\t")
        session.read_until("ear")
