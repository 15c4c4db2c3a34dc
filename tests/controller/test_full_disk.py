"""A server whose state folder is on a disk that is full, for real: a small file system in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mullama.controller.rate_state import RateState
from mullama.store.usage import UsageQuery
from tests.runtime.runtime_fixture import LocalServer, local_server

pytestmark = pytest.mark.anyio
_LIMITED = {"limits": {"rate": {"requests": "1k/d"}}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@pytest.fixture
async def server(disk: Path, tmp_path: Path) -> AsyncIterator[LocalServer]:
    async with local_server(tmp_path) as running:
        yield running


def fill(path: Path) -> None:
    """Write a file until there is no space left for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    assert os.statvfs(path).f_bavail == 0


async def used(server: LocalServer) -> int:
    (total,) = await server.operator.usage(UsageQuery(since=server.now - 60))
    return int(total["requests"])


@pytest.mark.parametrize("begun", [False, True], ids=["before the first record", "with records"])
async def test_a_full_disk_ends_no_service_and_loses_no_count(begun: bool, server: LocalServer, disk: Path) -> None:
    await server.apply({"a": {"from": server.script(default="yes"), **_LIMITED}})
    if begun:
        assert await server.ask("a", "hi") == "yes"
        assert await used(server) == 1
    filler = disk / "filler"
    fill(filler)

    for _ in range(3):
        assert await server.ask("a", "hi") == "yes"
        await server.usage.write()
    condition = server.condition("UsageRecorded")
    assert (condition["status"], condition["reason"]) == (False, "StoreFailed")
    assert "usage waits in memory" in condition["message"]
    rates = RateState(server.rates, server.records)
    assert server.rates.admit(None, "a")
    rates.close()  # the levels cannot be saved, and hold in memory
    assert server.rates.tree()[0]["remaining"] == 999
    changed = await server.apply({"a": {"from": server.script(default="yes"), "system": "x", **_LIMITED}})
    assert changed["outcome"] != "applied"
    assert "no space" in changed["message"].casefold()
    assert await server.ask("a", "hi") == "yes"

    filler.unlink()
    assert await used(server) == 4 + begun
    assert server.condition("UsageRecorded")["status"] is True
    changed = await server.apply({"a": {"from": server.script(default="yes"), "system": "x", **_LIMITED}})
    assert changed["outcome"] == "applied"
    await server.usage.close()
