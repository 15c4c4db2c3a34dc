"""The lock file beside a watched manifest: a change of it alone is applied."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.git.follower import GitFollower
from mullama.names import LOCK_NAME
from mullama.reconcile.lock import write_lock
from mullama.store import lockfile
from tests.controller.watch.test_watcher import watched, watcher_of
from tests.git_host import git_host
from tests.runtime.runtime_fixture import CALLER, LocalServer, until
from tests.tools.mcp_stub import McpStub

pytestmark = pytest.mark.anyio

LOOKS = {"look_every": 0.05, "read_every": 60.0}
OTHERS = {"read": "sha256:" + "0" * 64}


@pytest.fixture
async def stub() -> AsyncIterator[McpStub]:
    async with McpStub().running() as running:
        yield running


@pytest.fixture
async def locked(server: LocalServer, stub: McpStub) -> AsyncIterator[tuple[LocalServer, dict[str, str]]]:
    """A server whose lock file pins other tools than its server has; and the digests of those that it has."""
    pin(server, OTHERS)
    server.script("a", constraints=True)
    async with watched(server, manifest(stub), **LOOKS):
        yield server, await digests(server)
        await server.reconciler.stop()


def manifest(stub: McpStub, **blocks: Any) -> str:
    models = {"a": {"from": "./a.script.json", "mcp": ["docs"]}}
    return json.dumps({"mullama": "v1", "models": models, "mcp": {"docs": {"url": stub.url, "timeout": 5}}, **blocks})


def pin(server: LocalServer, tools: dict[str, str]) -> None:
    write_lock(str(server.home / "mullama.yaml"), {}, None, {"docs": tools})


async def digests(server: LocalServer) -> dict[str, str]:
    """Wait for the tools, none of which is as pinned, and return their digests."""
    await until(lambda: [one["state"] for one in server.operator.status()["tools"]] == ["ready"])
    assert tools_of(server) == []
    return {one.name: one.digest for one in await server.reconciler.tools.provider("docs").tools()}


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


async def test_a_commit_of_the_lock_file_alone_is_applied(server: LocalServer, stub: McpStub, tmp_path: Path) -> None:
    with git_host(tmp_path / "host") as host:
        sync = {"git": {"url": host.url}}
        script = (server.home / server.script("a", constraints=True)).read_text()
        files = {"mullama.yaml": manifest(stub, sync=sync), "a.script.json": script}
        host.commit({**files, LOCK_NAME: lockfile.render({}, None, {"docs": OTHERS})})
        watcher = watcher_of(server, **LOOKS)
        git = GitFollower(
            folder=server.records.git_folder, current=lambda: server.reconciler.current, adopt=watcher.follow,
            conditions=server.reconciler.status.conditions, event_log=server.event_log, env=dict(os.environ),
        )  # fmt: skip
        server.reconciler.state.subscribers.append(git.applied)
        watcher.start()
        await server.apply({"a": {"from": "./a.script.json"}}, sync=sync)
        await git.sync()
        commit = host.commit({LOCK_NAME: lockfile.render({}, None, {"docs": await digests(server)})})
        await git.sync()
        await until(lambda: tools_of(server) == ["read", "search"])
        await until(lambda: server.reconciler.current.origin.commit == commit)
        await watcher.close()
        await server.reconciler.stop()
