"""Downloads are shared by all that need the same files, and end when none does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mullama.controller.runs.downloads import SharedDownloads
from mullama.errors import NotFound
from mullama.plan.observed import KnownFiles
from mullama.reconcile.execute import Report

pytestmark = pytest.mark.anyio

FILES = KnownFiles(source="x", stored=True)


class Source:
    """A download that ends when `end` is set, and counts how often it was begun and cancelled."""

    def __init__(self, fails: bool = False) -> None:
        self.end, self.fails = asyncio.Event(), fails
        self.begun = self.cancelled = 0

    async def fetch(self, report: Report) -> KnownFiles:
        self.begun += 1
        report({"n": self.begun})
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise NotFound("gone", name="x")
        return FILES


async def test_two_users_share_one_download_and_both_get_its_progress() -> None:
    downloads, source = SharedDownloads(), Source()
    heard: list[tuple[str, Any]] = []
    waiting = [
        asyncio.create_task(downloads.get("k", source.fetch, lambda line, who=who: heard.append((who, line))))  # type: ignore[misc]
        for who in "ab"
    ]
    await asyncio.sleep(0)
    source.end.set()

    assert await asyncio.gather(*waiting) == [FILES, FILES]
    assert source.begun == 1
    assert {who for who, _ in heard} == {"a", "b"}


async def test_a_download_ends_when_its_last_user_leaves() -> None:
    downloads, source = SharedDownloads(), Source()
    first, second = (asyncio.create_task(downloads.get("k", source.fetch, lambda line: None)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait({first})
    assert source.cancelled == 0

    second.cancel()
    await asyncio.wait({second})
    await asyncio.sleep(0)
    assert source.cancelled == 1


async def test_a_registered_need_keeps_a_download_alive() -> None:
    downloads, source = SharedDownloads(), Source()
    first = asyncio.create_task(downloads.get("k", source.fetch, lambda line: None))
    await asyncio.sleep(0)

    with downloads.needed(["k"]):
        first.cancel()
        await asyncio.wait({first})
        source.end.set()
        assert await downloads.get("k", source.fetch, lambda line: None) is FILES

    assert (source.begun, source.cancelled) == (1, 0)


async def test_after_a_failure_the_next_user_begins_anew() -> None:
    downloads, source = SharedDownloads(), Source(fails=True)
    source.end.set()
    for _ in range(2):
        with pytest.raises(NotFound):
            await downloads.get("k", source.fetch, lambda line: None)
    assert source.begun == 2
