"""A scripted server of the terminal page: a status, and updates that the test sends when it wants."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.page.server_access import PageServer
from mullama.cli.server.top import top_options
from tests.cli.conftest import Screen
from tests.cli.tinyserver import Answer, Asked, TinyServer

GIB = 2**30
HOSTILE = "\x1b[31mred\x1b[0m [bold red]big[/] \u202egnp.exe"
"""Escapes of a terminal, markup of the library, and a mark that turns the direction of text."""


def model(name: str, **fields: Any) -> dict[str, Any]:
    """Return a row of the status: a model that is ready and has no request."""
    return {
        "name": name, "state": "ready", "revision": "ab" * 32, "generation": 1, "is_default": False,
        "beside_manifest": False, "source": "hf:org/repo:Q4_K_M", "digest": "sha256:" + "0" * 64, "size": 3 * GIB,
        "memory": 4 * GIB, "memory_own": 4 * GIB, "shared_with": None, "gpu_layers": 0, "devices": [],
        "context_size": 8192, "parallel": 4, "pool": None, "prefix_tokens": 0, "draft": None, "checkpoints": None,
        "active": 0, "waiting": 0, "load": "at_start", "ttl": None, "expires": None, "progress": None, "worker": 7,
        "warnings": [], "conditions": [{"type": "Ready", "status": True, "reason": "Loaded", "message": ""}],
        **fields,
    }  # fmt: skip


def failed(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """Return a row of a model that could not be loaded."""
    condition = {"type": "Ready", "status": False, "reason": "LoadFailed", "message": message}
    return model(name, state="failed", memory=0, memory_own=0, conditions=[condition], **fields)


def status(*models: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the status of a ready server."""
    return {
        "format": "mullama.status/1", "version": "0.2.0", "pid": 1, "uptime": 60.0, "generation": 3,
        "revision": "r3", "state": "ready", "listen": ["127.0.0.1:11434"],
        "origin": {"path": "/srv/mullama.yaml", "profiles": [], "digest": "", "commit": None, "targets": []},
        "conditions": [{"type": "Degraded", "status": False, "reason": "Applied", "message": ""}],
        "models": list(models), "memory": {"used": 4 * GIB, "names": 1, "models": 1}, "routes": {},
        "machine": {"ram_total": 32 * GIB, "ram_available": 20 * GIB, "gpus": [], "cores": 8},
        **fields,
    }  # fmt: skip


def event(id: int, kind: str, subject: str = "", message: str = "") -> dict[str, Any]:
    return {"id": id, "when": 1_800_000_000.0 + id, "kind": kind, "subject": subject, "message": message}


def sample(**tokens: float) -> dict[str, Any]:
    return {"sample": {"when": 0.0, "tokens": tokens, "running": 0, "waiting": 0}}


class LiveStream(Answer):
    """The answer to `/api/v1/live`: `send` adds an update, `end` closes the connection."""

    def __init__(self, *updates: dict[str, Any]) -> None:
        super().__init__()
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        for update in updates:
            self.send(update)

    def send(self, update: dict[str, Any]) -> None:
        self._queue.put(b"data: " + json.dumps(update).encode() + b"\n\n")

    def end(self) -> None:
        self._queue.put(None)

    def parts(self) -> Iterator[bytes]:  # type: ignore[override]
        while (piece := self._queue.get(timeout=60)) is not None:
            yield piece


class ScriptedServer:
    """A tiny server with a status. Each connection to the live stream is a new entry of `streams`."""

    def __init__(self, tiny: TinyServer, tree: dict[str, Any], *events: dict[str, Any]) -> None:
        self.tiny, self.tree, self.events = tiny, tree, list(events)
        self.streams: list[LiveStream] = []
        self.refusal: Answer | None = None
        """The answer to the live stream instead, such as one to a wrong key."""
        tiny.answers["GET /api/v1/live"] = self._live
        tiny.answers["GET /api/v1/stack"] = Answer({"manifest": {"hardware": {"budget": {"ram": 8 * GIB}}}})
        tiny.answers["GET /api/v1/status"] = lambda _: Answer(self.tree)

    def _live(self, _: Asked) -> Answer:
        if self.refusal is not None:
            return self.refusal
        self.streams.append(LiveStream({"id": 1, "status": self.tree, "events": self.events}))
        return self.streams[-1]

    def send(self, **update: Any) -> None:
        """Send an update to the page."""
        self.streams[-1].send(update)

    def close(self) -> None:
        for stream in self.streams:
            stream.end()

    def bodies(self, key: str) -> list[Any]:
        """Return the bodies of the requests `METHOD path`."""
        return [asked.body for asked in self.tiny.asked if f"{asked.method} {asked.path}" == key]


def page_call(tiny: TinyServer, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> CommandContext:
    """Return the context of `mullama top` for this server."""
    from mullama.cli.console.terminal import Terminal

    parser = Parser(prog="mullama top")
    top_options(parser)
    options = parser.parse_args(["--host", tiny.url, *arguments])
    terminal = Terminal(Screen(), Screen(), Screen(), {})
    return CommandContext(options=options, terminal=terminal, env=env or {}, folder=folder)


def page_server(tiny: TinyServer, folder: Path) -> PageServer:
    return PageServer(page_call(tiny, folder))


async def until(condition: Callable[[], Any], what: Callable[[], str], within: float = 15.0) -> None:
    """Wait until the condition holds; fail with the text of `what` after `within` seconds."""
    try:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - the page changes in its own time
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what()) from None


@asynccontextmanager
async def running(app: Any, width: int = 80, height: int = 24) -> Any:
    """Run a page without a terminal; yield its pilot."""
    async with app.run_test(size=(width, height), notifications=True) as pilot:
        yield pilot


async def press(pilot: Any, *keys: str) -> None:
    """Press keys, and wait until the page has taken each. The pilot's own `press` also waits for an idle process."""
    from textual.app import _character_to_key
    from textual.events import Key

    for key in keys:
        name = key if len(key) > 1 or key.isalnum() else _character_to_key(key)
        pilot.app._driver.send_message(Key(name, key if len(key) == 1 else None))
        for _ in range(3):  # the key goes to the widget with the focus, and from there up to the page
            await pilot.pause(0)


def screen_text(app: Any) -> str:
    """Return the characters of the screen, one line for each row of the terminal."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line)[:width].rstrip() for line in lines[:height])
