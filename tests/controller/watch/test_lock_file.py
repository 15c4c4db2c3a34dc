"""The lock file beside a watched manifest: a change of it alone is applied."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mullama.names import LOCK_NAME
from mullama.reconcile.lock import write_lock
from tests.controller.watch.test_watcher import watched, watcher_of
from tests.runtime.runtime_fixture import CALLER, LocalServer, until
from tests.tools.mcp_stub import McpStub

pytestmark = pytest.mark.anyio

LOOKS = {"look_every": 0.05, "read_every": 60.0}


@pytest.fixture
async def locked(server: LocalServer) -> AsyncIterator[tuple[LocalServer, dict[str, str]]]:
    """A server whose lock file pins other tools than its server has; and the digests of those that it has."""
    async with McpStub().running() as stub:
        manifest = {
            "mullama": "v1", "server": {"listen": ["127.0.0.1:0"]},
            "models": {"a": {"from": "./a.script.json", "mcp": ["docs"]}},
            "mcp": {"docs": {"url": stub.url, "timeout": 5}},
        }  # fmt: skip
        pin(server, {"read": "sha256:" + "0" * 64})
        server.script("a", constraints=True)
        async with watched(server, json.dumps(manifest), **LOOKS):
            await until(lambda: server.operator.status()["tools"][0]["state"] == "ready")
            assert tools_of(server) == []
            yield server, {one.name: one.digest for one in await server.reconciler.tools.provider("docs").tools()}
            await server.reconciler.stop()


def pin(server: LocalServer, tools: dict[str, str]) -> None:
    write_lock(str(server.home / "mullama.yaml"), {}, None, {"docs": tools})


def tools_of(server: LocalServer) -> list[str]:
    return [one.name for one in server.reconciler.tools.tools_of("a", CALLER)]


async def test_the_watch_applies_new_pins_once(locked: tuple[LocalServer, dict[str, str]]) -> None:
    server, now = locked
    pin(server, now)
    await until(lambda: tools_of(server) == ["read", "search"])
    assert not await server.reconciler.lock_changed()
    assert server.snapshot.generation == 1


async def test_a_reload_applies_new_pins(locked: tuple[LocalServer, dict[str, str]]) -> None:
    server, now = locked
    watcher = watcher_of(server)
    watcher.follow(server.reconciler.current.origin)
    pin(server, now)
    assert (await watcher.reload("test")).outcome == "applied"
    assert tools_of(server) == ["read", "search"]


async def test_a_lock_file_that_cannot_be_read_is_reported_and_the_pins_stay(
    locked: tuple[LocalServer, dict[str, str]],
) -> None:
    server, now = locked
    Path(server.home, LOCK_NAME).write_text("{")
    await until(lambda: server.condition("ConfigValid")["status"] is False)
    assert LOCK_NAME in server.condition("ConfigValid")["message"]
    pin(server, now)
    await until(lambda: server.condition("ConfigValid")["status"])
    await until(lambda: tools_of(server) == ["read", "search"])
