"""The screens of the page as texts, at three sizes of the terminal.

A screen that differs on purpose is written again by MULLAMA_SNAPSHOTS=write, and looked at in the diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mullama.plan.steps import to_tree
from tests.cli.manifest.test_apply import CHANGED, plan
from tests.cli.page.scripted import (
    ScriptedServer,
    event,
    failed,
    model,
    page_server,
    press,
    running,
    screen_text,
    status,
    until,
)
from tests.cli.page.scripted import sample as speeds
from tests.cli.tinyserver import Answer, TinyServer

pytest.importorskip("textual")
pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent / "snapshots"
SIZES = ((40, 20), (80, 24), (120, 30))
MODELS = (
    model("chat", is_default=True),
    model("coder", active=2, waiting=1),
    model("coder-long", memory_own=0, shared_with="coder"),
    model("spare", state="idle", memory=0, memory_own=0),
    failed("big", "no memory on CUDA0: 12 GiB are needed, 8 GiB are free"),
)
USAGE = {
    "requests": 3,
    "errors": 1,
    "prompt_tokens": 700,
    "cached_tokens": 512,
    "generated_tokens": 12345,
    "seconds": 61,
}
# Each screen with the keys that lead to it from the one before, and a text that it shows when it is complete.
SCREENS = {
    "models": ((), "○ idle"),
    "details": (("down", "enter"), "2 running, 1"),
    "help": (("escape", "question_mark"), "show a pane"),
    "plan": (("escape", "4"), "changed."),
    "question": (("a",), "Apply /srv/"),
    "usage": (("escape", "5"), "12,345"),
    "chat": (("6",), "\n chat\n"),
}


@pytest.fixture
def server(tiny: TinyServer) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(tiny, status(*MODELS, routes={"default": "chat"}), event(1, "applied", "revision 3"))
    answers = tiny.answers
    answers["GET /api/v1/manifest"] = Answer(
        {"path": "/srv/m.yaml", "profiles": [], "text": "", "digest": "d", "readonly": ""}
    )
    answers["POST /api/v1/manifest/plan"] = Answer({"problems": [], "warnings": [], "plan": to_tree(plan(CHANGED))})
    answers["GET /api/v1/usage?since=604800s&by=model"] = Answer({"rows": [{"model": "chat", **USAGE}]})
    answers["GET /api/models/chat"] = Answer({"name": "chat", "capabilities": ["completion"]})
    yield scripted
    scripted.close()


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_the_screens_are_as_they_were(
    server: ScriptedServer, tmp_path: Path, monkeypatch: Any, width: int, height: int
) -> None:
    from mullama.cli.page.screens.app import PageApp
    from mullama.cli.page.start import top_panes

    monkeypatch.delenv("NO_COLOR", raising=False)
    app = PageApp(page_server(server.tiny, tmp_path), top_panes())
    seen: dict[str, tuple[str, str]] = {}
    async with running(app, width, height) as pilot:
        await until(lambda: "● ready" in screen_text(app), lambda: screen_text(app))
        server.send(**speeds(coder=9.5))
        await until(lambda: app.view.samples and app.budget, lambda: screen_text(app))
        for screen, (keys, complete) in SCREENS.items():
            await press(pilot, *keys)
            await until(lambda complete=complete: complete in screen_text(app), lambda: screen_text(app))
            file = FOLDER / f"{screen}-{width}.txt"
            if os.environ.get("MULLAMA_SNAPSHOTS") == "write":
                await pilot.pause(1)  # the keys of the footer are drawn last
                file.write_text(f"{screen_text(app)}\n", encoding="utf-8")
            wanted = file.read_text(encoding="utf-8").removesuffix("\n")
            with suppress(AssertionError):  # the comparison below shows the difference
                await until(lambda wanted=wanted: screen_text(app) == wanted, lambda: "")
            seen[screen] = screen_text(app), wanted
    for text, wanted in seen.values():
        assert text == wanted
