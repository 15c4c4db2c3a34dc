"""Output is plain on a pipe, and text never acts on a terminal."""

from __future__ import annotations

import re

import pytest

from mullama.cli.console.terminal import Terminal
from mullama.plan.report import Line
from tests.cli.conftest import Screen

ANSI = re.compile("\x1b")


def terminal(*, tty: bool, text: str = "", **env: str) -> tuple[Terminal, Screen]:
    out = Screen(tty=tty)
    return Terminal(Screen(text, tty=tty), out, Screen(tty=tty), env), out


def write_everything(screen: Terminal) -> None:
    screen.line("a \x1b[31mred\x1b[0m line")
    screen.toned((Line("+ new", "add"), Line("plain")))
    screen.table(("NAME", "STATE"), [("a\x1b[2J", "ready"), ("longer", "failed")])


def test_no_ansi_code_is_written_to_a_pipe() -> None:
    plain, out = terminal(tty=False)
    write_everything(plain)
    assert not ANSI.search(out.getvalue())
    assert out.getvalue() == (
        "a \\x1b[31mred\\x1b[0m line\n+ new\nplain\nNAME      STATE\na\\x1b[2J  ready\nlonger    failed\n"
    )


LONG = "hf:organisation/Some-Model-7B-Instruct-GGUF:Some-Model-7B-Instruct-Q4_K_M.gguf"
ROWS = [("a-name-of-a-model-that-is-quite-long:7b-instruct", "ready", LONG)]


def test_a_pipe_gets_every_row_on_one_line() -> None:
    plain, out = terminal(tty=False)
    plain.table(("MODEL", "STATE", "FROM"), ROWS)
    assert out.getvalue().splitlines()[1].split() == list(ROWS[0])


def test_a_terminal_of_100_columns_shortens_the_last_column_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    screen, out = terminal(tty=True, TERM="xterm-256color")
    screen.table(("MODEL", "STATE", "FROM"), ROWS)
    (_, row) = re.sub("\x1b\\[[0-9;]*m", "", out.getvalue()).splitlines()
    name, state, source = row.split()
    assert (name, state) == ROWS[0][:2]
    assert source.endswith("…")
    assert LONG.startswith(source[:-1])
    assert len(row.rstrip()) <= 100


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_ansi_code_is_written_where_colour_is_not_wanted(env: dict[str, str]) -> None:
    plain, out = terminal(tty=True, **env)
    write_everything(plain)
    assert not ANSI.search(out.getvalue())


def test_a_terminal_gets_colour_but_no_code_from_the_text() -> None:
    screen, out = terminal(tty=True, TERM="xterm-256color")
    write_everything(screen)
    assert "\x1b[32m+ new" in out.getvalue()
    assert "\x1b[31mred" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


@pytest.mark.parametrize(
    ("typed", "meant"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_only_yes_is_yes(typed: str, meant: bool) -> None:
    screen, out = terminal(tty=True, text=typed)
    assert screen.confirm("Apply this?") is meant
    assert out.getvalue() == "Apply this? [y/N] "
