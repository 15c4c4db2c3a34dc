"""Completion scripts hold every command and option, and shells can read them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.cli.app.commands import COMMANDS
from mullama.cli.shell.completions import SHELLS, table
from tests.cli.conftest import Ran
from tests.cli.pty_session import pty_session

Run = Callable[..., Ran]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    script = SHELLS[shell](table())
    for command in table():
        assert command.names[0] in script
        for option in command.options:
            assert (option.text.lstrip("-") if shell == "fish" else option.text) in script


def test_every_command_of_the_table_is_completed() -> None:
    assert [c.names[0] for c in table()] == [*(c.name for c in COMMANDS), "help"]


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


MODELS = ("chat", "qwen3:8b", "qwen3:8b-long", "small")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("mullama", "run", ""), MODELS),
        (("mullama", "run", "s"), ("small",)),
        (("mullama", "run", "qwen3", ":", "8b-"), ("8b-long",)),
        (("mullama", "run", "qwen3", ":"), ("8b", "8b-long")),
        (("mullama", "run", "--no"), ("--nowordwrap", "--no-stream")),
        (("mullama", "run", "-m", ""), MODELS),
        (("mullama", "bench", "--model", "c"), ("chat",)),
        (("mullama", "show", ""), MODELS),
        (("mullama", "rm", "--force", "c"), ("chat",)),
        (("mullama", "unload", ""), MODELS),
        (("mullama", "diff", "--format", ""), ("text", "json", "markdown", "github", "sarif", "junit")),
        (("mullama", "diff", "--format", "j"), ("json", "junit")),
        (("mullama", "diff", "-f", ""), ()),
        (("mullama", "apply", "--file", "m"), ()),
        (("mullama", "completions", "b"), ("bash",)),
        (("mullama", "help", "val"), ("validate",)),
        (("mullama", "run", "chat", "--think", "h"), ("high",)),
        (("mullama", "run", "chat", "--truncate", ""), ("true", "false")),
        (("mullama", "completions", ""), tuple(SHELLS)),
        (("mullama", "ps", ""), MODELS),
        (("mullama", "list", "s"), ("small",)),
        (("mullama", "diff", "--target", "c"), ("chat",)),
        (("mullama", "lock", "--update", "qwen3", ":", "8b-"), ("8b-long",)),
        (("mullama", "diff", "--format", "=", "j"), ("json", "junit")),
        (("mullama", "diff", "--format", "="), ("text", "json", "markdown", "github", "sarif", "junit")),
        (("mullama", "run", "--model", "=", "qwen3", ":", "8b-"), ("8b-long",)),
        (("mullama", "--host", "h", "qua"), ("quantize",)),
        (("mullama", "--host", "http", ":", "//h", ":", "80", "--key-file", "=", "k", "run", "s"), ("small",)),
        (("mullama", "--host", "h", "diff", "--format", "j"), ("json", "junit")),
        (("mullama", "--host", ""), ()),
        (("mullama", "--h"), ("--help", "--host")),
        (("mullama", "ps", "--js"), ("--json",)),
        (("mullama", "ba"), ()),
    ],
)
def test_bash_completes_models_values_and_files(
    tmp_path: Path, words: tuple[str, ...], offered: tuple[str, ...]
) -> None:
    """An empty reply leaves the word to the shell, which completes files."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash here")
    _stub(tmp_path)
    typed = " ".join(f"'{word}'" for word in words)
    ask = f'COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _mullama; printf "%s\\n" "${{COMPREPLY[@]}}"'
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        [bash, "-c", SHELLS["bash"](table()) + ask], env=env, capture_output=True, text=True, check=True
    )
    assert tuple(done.stdout.split()) == offered


def test_the_names_of_models_are_those_of_the_server_else_of_the_manifest(run: Run, tmp_path: Path) -> None:
    assert run("completions", "--models").out == ""
    (tmp_path / "mullama.yaml").write_text(
        "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\n"
        "models: {a: {from: 'builtin:tiny'}, 'b:1': {from: 'builtin:tiny'}}\nroutes: {default: a}\n"
    )
    assert run("completions", "--models").out.split() == ["a", "b:1", "default"]
    (tmp_path / "mullama.yaml").write_text("mullama: v1\nmodels: [")
    assert (run("completions", "--models").code, run("completions", "--models").out) == (0, "")


def test_completions_without_a_shell_is_an_error(run: Run) -> None:
    ran = run("completions")
    assert (ran.code, "needs the name of a shell" in ran.err) == (4, True)


def _stub(folder: Path) -> None:
    """Write a `mullama` that prints the names of models."""
    stub = folder / "mullama"
    stub.write_text("#!/bin/sh\n" + "".join(f"echo {name}\n" for name in MODELS))
    stub.chmod(0o755)


FISH = {
    "mullama qua": ["quantize"],
    "mullama cache cl": ["clear"],
    "mullama pull --qu": ["--quiet"],
    "mullama completions b": ["bash"],
    "mullama run s": ["small"],
    "mullama run qwen3:8b-": ["qwen3:8b-long"],
    "mullama mullama": [],
    "mullama list s": ["small"],
    "mullama bench --model c": ["chat"],
    "mullama run -m s": ["small"],
    "mullama diff --format j": ["json", "junit"],
    "mullama apply -f mul": ["mullama.fish", "mullama"],
}


def test_fish_completes_commands_choices_options_models_and_files(tmp_path: Path) -> None:
    if (fish := shutil.which("fish")) is None:
        pytest.skip("no fish here")
    (tmp_path / "mullama.fish").write_text(SHELLS["fish"](table()))
    _stub(tmp_path)
    asked = "; echo end; ".join(("source mullama.fish", *(f"complete -C '{line}'" for line in FISH)))
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([fish, "-c", asked], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    parts = [part.split("\n") for part in done.stdout.split("end\n")[1:]]
    offered = [sorted(line.split("\t")[0] for line in part if line) for part in parts]
    assert dict(zip(FISH, offered, strict=True)) == {line: sorted(words) for line, words in FISH.items()}


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
    _stub(tmp_path)
    home = {
        "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PS1": "$ ", "TERM": "xterm",
        "PATH": f"{tmp_path}:/usr/bin:/bin",
    }  # fmt: skip
    with pty_session(arguments, tmp_path, program=program, **home) as session:
        session.type(begin)
        session.read_until("ready\r\n")
        session.type("mullama qua\t")
        session.read_until("ntize")
        session.type("\x15mullama cache cl\t")
        session.read_until("ear")
        if shell == "elvish":  # its script has no models, values and files
            return
        for typed, rest in (
            ("run sm", "all"), ("run qwen3:8b-l", "ong"), ("diff --format js", "on"), ("diff --format=js", "on"),
            ("--host h run sm", "all"), ("--host h qua", "ntize"),
        ):  # fmt: skip
            session.type(f"\x15mullama {typed}\t")
            session.read_until(rest)
        session.type("\x15mullama apply -f mullama.z\t")
        session.read_until("sh")
