"""apply on a pseudo-terminal."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from mullama.plan.steps import to_tree
from tests.cli.manifest.test_apply import CHANGED, plan
from tests.cli.pty_session import pty_session
from tests.cli.tinyserver import Answer, TinyServer

EVENTS = (
    {"event": "phase", "phase": "fetch"},
    {"event": "fetch", "model": "chat", "file": "chat.gguf", "done": 2**20, "total": 2**21},
)
DONE = (
    {"event": "step", "model": "chat", "state": "ready", "message": ""},
    {"event": "result", "outcome": "applied", "generation": 2, "message": "revision 2 is applied"},
)


def encoded(events: tuple[dict[str, object], ...]) -> tuple[bytes, ...]:
    return tuple(json.dumps(event).encode() + b"\n" for event in events)


@pytest.fixture
def folder(tmp_path: Path, tiny: TinyServer) -> Path:
    (tmp_path / "mullama.yaml").write_text("mullama: v1\nmodels:\n  chat: builtin:tiny\n")
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(CHANGED)))
    return tmp_path


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_apply_asks_shows_progress_live_and_leaves_a_clean_screen(tree: None, folder: Path, tiny: TinyServer) -> None:
    tiny.answers["PUT /api/v1/stack"] = Answer(pieces=encoded((*EVENTS, *DONE)))
    with pty_session(["apply", "--host", tiny.url], folder) as session:
        session.read_until("Apply this? [y/N]")
        assert "\x1b[33m~ chat" in session.seen, "the plan is coloured"
        session.type("y\n")
        code = session.finish()
    assert code == 0
    assert session.seen.index("\x1b[?25l") < session.seen.rindex("\x1b[?25h"), "the cursor comes back"
    assert "chat ready" in session.seen
    assert "revision 2 is applied" in session.seen.rsplit("\x1b[?25h", 1)[1]


def test_an_interrupted_apply_gives_the_terminal_back(tree: None, folder: Path, tiny: TinyServer) -> None:
    hold = threading.Event()
    tiny.answers["PUT /api/v1/stack"] = Answer(pieces=encoded(EVENTS), hold=hold)
    with pty_session(["apply", "--yes", "--host", tiny.url], folder) as session:
        session.read_until("1 MiB of 2 MiB")
        session.type("\x03")
        code = session.finish()
    hold.set()
    assert code == 130
    assert session.seen.rindex("\x1b[?25h") > session.seen.rindex("\x1b[?25l")
    assert "Traceback" not in session.seen
    assert session.seen.rstrip().endswith("interrupted")


def test_no_color_is_obeyed_on_a_terminal_too(tree: None, folder: Path, tiny: TinyServer) -> None:
    tiny.answers["PUT /api/v1/stack"] = Answer(pieces=encoded((*EVENTS, *DONE)))
    with pty_session(["apply", "--yes", "--host", tiny.url], folder, NO_COLOR="1") as session:
        assert session.finish() == 0
    assert "\x1b" not in session.seen
    assert "revision 2 is applied" in session.seen
