"""`mullama top` as a command: on a real terminal, on a pipe, and without its extra."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.page.scripted import HOSTILE, ScriptedServer, event, failed, model, sample, status
from tests.cli.pty_session import pty_session
from tests.cli.tinyserver import Answer, TinyServer

_COLOURS = re.compile(r"\x1b\[[0-9;]*?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


@pytest.fixture
def server(tiny: TinyServer) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(tiny, status(model("chat", is_default=True), failed("big", "no memory")))
    live = tiny.answers["GET /api/v1/live"]

    def with_sample(asked: Any) -> Answer:
        assert callable(live)
        answer = live(asked)
        scripted.send(**sample(chat=12.0))
        return answer

    tiny.answers["GET /api/v1/live"] = with_sample
    yield scripted
    scripted.close()


def test_a_pipe_gets_one_plain_table(run: Callable[..., Any], server: ScriptedServer) -> None:
    ran = run("top", "--host", server.tiny.url)
    assert (ran.code, ran.err) == (0, "")
    heads, chat, big = ran.out.splitlines()
    assert heads.split() == ["MODEL", "STATE", "MEMORY", "REQUESTS", "TOK/S", "LAST", "ERROR"]
    assert chat.split() == ["chat", "*", "●", "ready", "4", "GiB", "0", "12"]
    assert big.split() == ["big", "✗", "failed", "-", "0", "-", "LoadFailed:", "no", "memory"]


def test_once_prints_it_on_a_terminal_too_sorted_and_filtered(run: Callable[..., Any], server: ScriptedServer) -> None:
    ran = run("top", "--once", "--sort", "name", "--filter", "failed", "--host", server.tiny.url, tty=True)
    assert ran.code == 0
    assert "big" in ran.out
    assert "chat" not in ran.out


def test_json_has_speed_and_last_error(run: Callable[..., Any], server: ScriptedServer) -> None:
    server.events = [event(1, "degraded", "big", "no memory")]
    ran = run("top", "--json", "--host", server.tiny.url)
    tree = json.loads(ran.out)
    assert tree["format"] == "mullama.top/1"
    chat, big = tree["models"]
    assert (chat["tokens_per_second"], chat["last_error"]) == (12.0, None)
    assert big["last_error"]["message"] == "no memory"


def test_a_wrong_key_ends_the_plain_table_with_the_hint(run: Callable[..., Any], server: ScriptedServer) -> None:
    error = {"kind": "denied", "message": "the API key is not valid", "hint": ""}
    server.tiny.answers["GET /api/v1/live"] = Answer({"error": error}, 401)
    ran = run("top", "--host", server.tiny.url)
    assert ran.code == 7
    assert "--key-file" in ran.err


def test_without_the_extra_the_error_has_the_pip_line(
    run: Callable[..., Any], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("mullama.cli.page.start.find_spec", lambda name: None if name == "textual" else find(name))
    monkeypatch.setattr("mullama.cli.page.start.sys", type("sys", (), {"modules": {}}))
    ran = run("top", "--host", server.tiny.url, tty=True)
    assert ran.code == 4
    assert "pip install 'mullama[tui]'" in ran.err
    assert "--once" in ran.err


def test_without_a_server_the_command_ends_before_a_page(run: Callable[..., Any]) -> None:
    ran = run("top", tty=True)
    assert ran.code == 11
    assert "no server is running" in ran.err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_page_on_a_terminal_opens_and_gives_it_back(terminal: None, server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("textual")
    server.tree = status(model(HOSTILE), model("chat"))
    with pty_session(["top", "--host", server.tiny.url], tmp_path, LINES="24", COLUMNS="160") as session:
        session.read_until("big[/]")
        session.type("q")
        assert session.finish() == 0
    assert "\x1b[?1049h" in session.seen, "the page has a screen of its own"
    assert session.seen.rindex("\x1b[?1049l") > session.seen.rindex("\x1b[?1049h"), "and leaves it"
    assert "\x1b[31mred" not in session.seen
    assert "\u202e" not in session.seen
    assert _COLOURS.search(session.seen), "colours are used"


def test_no_color_writes_no_colour(terminal: None, server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("textual")
    with pty_session(["top", "--host", server.tiny.url], tmp_path, LINES="24", COLUMNS="120", NO_COLOR="1") as session:
        session.read_until("no memory")
        session.type("q")
        assert session.finish() == 0
    assert not _COLOURS.search(session.seen)
    assert re.search(r"\x1b\[(?:\d+;)*4(?:;\d+)*m", session.seen), "a line under its row tells the cursor"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_page_in_tmux_is_drawn_moved_and_closed(terminal: None, server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("textual")

    def tmux(*arguments: str) -> str:
        command = ["tmux", "-f", "/dev/null", "-S", str(tmp_path / "tmux"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout

    def shown(*texts: str) -> None:
        deadline = time.monotonic() + 20
        while not all(text in (screen := tmux("capture-pane", "-p")) for text in texts):
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)

    page = shlex.join(
        ["env", "-u", "COLUMNS", "-u", "LINES", sys.executable, "-m", "mullama", "top", "--host", server.tiny.url]
    )
    tmux("new-session", "-d", "-x", "80", "-y", "24", page)
    try:
        shown("chat *", "LoadFailed: no", "? help")
        tmux("send-keys", "2")
        shown("No event yet.")
        tmux("send-keys", "1")
        shown("chat *")
        tmux("resize-window", "-x", "50", "-y", "16")
        shown("1 Models  2  3", "mullama.yaml\n")
        tmux("send-keys", "q")
        deadline = time.monotonic() + 60
        while tmux("list-sessions"):
            assert time.monotonic() < deadline, tmux("capture-pane", "-p")
            time.sleep(0.05)
    finally:
        tmux("kill-server")


def test_a_dumb_terminal_gets_the_table(terminal: None, server: ScriptedServer, tmp_path: Path) -> None:
    with pty_session(["top", "--host", server.tiny.url], tmp_path, TERM="dumb") as session:
        assert session.finish() == 0
    assert "\x1b" not in session.seen
    assert "chat *" in session.seen


def test_help_and_version_import_no_page() -> None:
    from tests.cli.app.test_imports import modules_of

    for program in ("main(['--help'])", "main(['top', '--help'])"):
        code = f"from mullama.cli.app.main import main\ntry:\n    {program}\nexcept SystemExit:\n    pass"
        _, modules = modules_of(code)
        assert not {name for name in modules if name.startswith(("textual", "mullama.cli.page"))}
