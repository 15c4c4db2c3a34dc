"""Output is plain on a pipe, and text never acts on a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mullama.cli.console.terminal import Terminal
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.errors import Conflict, Unavailable
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


EVENTS: list[dict[str, Any]] = [
    {"event": "phase", "phase": "fetch"},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 5, "total": 10},
    {"event": "fetch", "model": "a", "file": "a.gguf", "done": 10, "total": 10},
    {"event": "phase", "phase": "load"},
    {"event": "step", "model": "a\x1b[2J", "state": "loading", "message": ""},
    {"event": "warning", "message": "slow"},
    {"event": "step", "model": "a\x1b[2J", "state": "ready", "message": ""},
    {"event": "result", "outcome": "applied", "generation": 1},
]


def test_an_apply_is_shown_as_lines_on_a_pipe() -> None:
    plain, out = terminal(tty=False)
    view = ApplyView(plain)
    view.run(EVENTS)
    view.show_outcome()
    assert out.getvalue().splitlines() == [
        "fetching files",
        "  a: downloading a.gguf: 10 B",
        "loading models",
        "  a\\x1b[2J: loading",
        "warning: slow",
        "  a\\x1b[2J: ready",
        "revision 1 is applied",
    ]


def test_an_apply_is_shown_live_on_a_terminal() -> None:
    screen, out = terminal(tty=True, TERM="xterm-256color")
    view = ApplyView(screen)
    view.run(EVENTS)
    view.show_outcome()
    shown = out.getvalue()
    assert "\x1b[?25l" in shown, "the cursor is hidden while the region moves"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "and shown again at the end"
    assert "a.gguf: 100 %, 10 B of 10 B" in shown
    assert "warning: slow" in shown
    assert "\x1b[2J" not in shown
    assert shown.endswith("revision 1 is applied\n")


def test_events_that_end_early_are_an_error_and_keep_the_progress() -> None:
    view = ApplyView(terminal(tty=False)[0])
    with pytest.raises(Unavailable, match="before the result"):
        view.run(EVENTS[:5])
    assert view.progress.committed


def test_an_error_line_is_raised_as_the_error_it_is() -> None:
    view = ApplyView(terminal(tty=False)[0])
    line = {"event": "error", "error": {"kind": "conflict", "message": "stale", "hint": ""}}
    with pytest.raises(Conflict, match="stale"):
        view.run([*EVENTS[:2], line])


def test_the_loading_need_not_be_awaited() -> None:
    rest = iter(EVENTS)
    progress = ApplyView(terminal(tty=False)[0]).run(rest, until_committed=True)
    assert progress.result is None
    assert next(rest)["event"] == "step"


def test_json_lines_are_the_events_unchanged() -> None:
    plain, out = terminal(tty=False)
    ApplyView(plain, as_json=True).run(EVENTS)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == EVENTS
    assert not ANSI.search(out.getvalue())
