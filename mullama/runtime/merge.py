"""Several streams as one, in the order things happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from mullama.engines.base import Output
from mullama.errors import MullamaError, Unavailable


async def merge(
    streams: Sequence[AsyncGenerator[Output, None]], on_cut: Callable[[Callable[[], None]], None]
) -> AsyncGenerator[tuple[int, Output], None]:
    """(index, output) of every stream until all have ended; the first failure ends them all.

    Being cut (a drain deadline) is a failure that the client is told.
    """
    if len(streams) == 1:
        async for output in _one(streams[0], on_cut):
            yield 0, output
        return
    queue: asyncio.Queue[tuple[int, Output] | MullamaError | None] = asyncio.Queue()
    on_cut(lambda: queue.put_nowait(_cut()))

    async def pump(index: int, stream: AsyncGenerator[Output, None]) -> None:
        try:
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    queue.put_nowait((index, output))
        except MullamaError as error:
            queue.put_nowait(error)
        else:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(pump(i, stream)) for i, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if isinstance(item, MullamaError):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(
    stream: AsyncGenerator[Output, None], on_cut: Callable[[Callable[[], None]], None]
) -> AsyncGenerator[Output, None]:
    """The common case, without a task between the worker and the client."""
    reader = asyncio.current_task()
    was_cut = False

    def cut() -> None:
        nonlocal was_cut
        was_cut = True
        if reader is not None:
            reader.cancel()

    on_cut(cut)
    try:
        async with aclosing(stream) as outputs:
            async for output in outputs:
                yield output
    except asyncio.CancelledError:
        if not was_cut:
            raise
        if reader is not None:
            reader.uncancel()
        raise _cut() from None


def _cut() -> Unavailable:
    message = "the model was replaced or unloaded, and the time to finish is over"
    return Unavailable(message, hint="send the request again")
