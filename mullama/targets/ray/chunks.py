"""Joins the events of a stream that arrive in short succession, because each message between processes has a price."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def coalesced(stream: AsyncIterator[Sequence[T]], gap: float) -> AsyncGenerator[list[T], None]:
    """Yield the items of a stream: the first at once, then at most one list in each `gap` seconds.

    An item waits for `gap` at most. The end of the stream waits for nothing. Closing the iterator closes the stream;
    an error of the stream is raised after the items before it.
    """
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

    reader, last = loop.create_task(read()), float("-inf")
    try:
        while waiting or not reader.done():
            await arrived.wait()
            arrived.clear()
            if (pause := last + gap - loop.time()) > 0 and not reader.done():
                await asyncio.wait({reader}, timeout=pause)
            if waiting:
                some = list(waiting)
                waiting.clear()
                last = loop.time()
                yield some
            if reader.done():
                arrived.set()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
