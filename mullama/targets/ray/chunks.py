"""Joins the events of a stream that arrive in short succession, because each message between processes has a price."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import chain, repeat
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def coalesced(stream: AsyncIterator[Sequence[T]], gaps: Sequence[float]) -> AsyncGenerator[list[T], None]:
    """Yield the items of a stream in lists: the first at once, and each further one at the earliest after its gap.

    gaps: seconds between a list and the next one; the last gap repeats. An item waits for no longer than its gap, and
    the end of the stream waits for nothing. Closing the iterator closes the stream; an error of the stream is raised
    after the items before it.
    """
    further = chain(gaps, repeat(gaps[-1]))
    waiting: list[T] = []
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()

    async def read() -> None:
        try:
            async with aclosing(cast(Any, stream)):
                async for items in stream:
                    waiting.extend(items)
                    arrived.set()
        finally:
            arrived.set()

    reader, due = loop.create_task(read()), float("-inf")
    try:
        while waiting or not reader.done():
            await arrived.wait()
            arrived.clear()
            if (pause := due - loop.time()) > 0 and not reader.done():
                await asyncio.wait({reader}, timeout=pause)
            if waiting:
                some = list(waiting)
                waiting.clear()
                due = loop.time() + next(further)
                yield some
            if reader.done():
                arrived.set()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
