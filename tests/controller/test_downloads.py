"""Fetches are shared by whoever needs the same files, and end when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mullama.controller.downloads import SharedDownloads, Tell
from mullama.errors import NotFound
from mullama.plan.observed import KnownFiles
from tests.runtime.runtime_fixture import run

FILES = KnownFiles(source="x", stored=True)


class Source:
    """A fetch that ends when it is told to, and remembers how often it was begun and cancelled."""

    def __init__(self, fails: bool = False) -> None:
        self.end, self.fails = asyncio.Event(), fails
        self.begun = self.cancelled = 0

    async def fetch(self, tell: Tell) -> KnownFiles:
        self.begun += 1
        tell({"n": self.begun})
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise NotFound("gone", name="x")
        return FILES


def told(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    return lambda: run(test)


@told
async def test_two_who_need_the_same_wait_for_one_fetch_and_both_are_told() -> None:
    fetches, source = SharedDownloads(), Source()
    heard: list[tuple[str, Any]] = []
    waiting = [
        asyncio.create_task(fetches.have("k", source.fetch, lambda line, who=who: heard.append((who, line))))  # type: ignore[misc]
        for who in "ab"
    ]
    await asyncio.sleep(0)
    source.end.set()

    assert await asyncio.gather(*waiting) == [FILES, FILES]
    assert source.begun == 1
    assert {who for who, _ in heard} == {"a", "b"}


@told
async def test_it_ends_when_the_last_one_leaves() -> None:
    fetches, source = SharedDownloads(), Source()
    first, second = (asyncio.create_task(fetches.have("k", source.fetch, lambda line: None)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait({first})
    assert source.cancelled == 0

    second.cancel()
    await asyncio.wait({second})
    await asyncio.sleep(0)
    assert source.cancelled == 1


@told
async def test_who_wants_it_keeps_it_going_before_he_waits_for_it() -> None:
    fetches, source = SharedDownloads(), Source()
    first = asyncio.create_task(fetches.have("k", source.fetch, lambda line: None))
    await asyncio.sleep(0)

    with fetches.wanting(["k"]):
        first.cancel()
        await asyncio.wait({first})
        source.end.set()
        assert await fetches.have("k", source.fetch, lambda line: None) is FILES

    assert (source.begun, source.cancelled) == (1, 0)


@told
async def test_a_failure_reaches_all_and_the_next_one_begins_anew() -> None:
    fetches, source = SharedDownloads(), Source(fails=True)
    source.end.set()
    for _ in range(2):
        with pytest.raises(NotFound):
            await fetches.have("k", source.fetch, lambda line: None)
    assert source.begun == 2
