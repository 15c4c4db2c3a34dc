"""The events of an apply as lines, as a live display and as NDJSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mullama.cli.console.terminal import Terminal
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.errors import Conflict, Unavailable
from tests.cli.conftest import Screen


def terminal(*, tty: bool, **env: str) -> tuple[Terminal, Screen]:
    out = Screen(tty=tty)
    return Terminal(Screen(tty=tty), out, Screen(tty=tty), env), out


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
    assert "\x1b" not in out.getvalue()
