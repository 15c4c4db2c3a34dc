"""Responses that are generated in the background: they run without their client, who fetches or follows them later.

The events of a run are kept while it runs, and are stored with the response if its request asked for a stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from mullama.dialects.base import BackgroundEncoder, Frame, StreamEvent
from mullama.errors import Busy, Internal, MullamaError, Unavailable
from mullama.names import JSONValue
from mullama.runtime.base import Caller

_log = logging.getLogger(__name__)

Save = Callable[[JSONValue, Sequence[Frame]], Awaitable[None]]
"""Stores the complete reply, with the frames of its stream."""


class BackgroundRun:
    """One answer in progress: its frames so far, for any number of followers."""

    def __init__(self, encoder: BackgroundEncoder) -> None:
        self.encoder = encoder
        self.reason: MullamaError | None = None
        """The error that ends the run from outside; None for a run that its client cancelled."""
        self.task: asyncio.Task[None] | None = None
        self._frames: list[Frame] = []
        self._done = False
        self._changed = asyncio.Event()

    @property
    def body(self) -> dict[str, JSONValue]:
        """The body of the reply so far."""
        return self.encoder.at("in_progress" if self._frames else "queued")

    def add(self, frames: Sequence[Frame], *, done: bool = False) -> None:
        self._frames += frames
        self._done = done
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[Sequence[Frame]]:
        """Yield the frames after this number, until the last one; a frame's number is its place."""
        sent = after + 1
        while True:
            if sent < len(self._frames):
                frames = self._frames[sent:]
                sent += len(frames)
                yield frames
            elif self._done:
                return
            else:
                await self._changed.wait()

    async def run(self, events: AsyncIterator[Sequence[StreamEvent]], save: Save) -> None:
        """Encode the events to their end, store the reply, and send the last frames after that."""
        try:
            last = await self._encode(events)
        except asyncio.CancelledError:
            last = list(self.encoder.fail(self.reason) if self.reason else self.encoder.cancel())
        except MullamaError as error:
            last = list(self.encoder.fail(error))
        except Exception as error:  # noqa: BLE001 - the client gets it as the end of the response
            _log.error("a response in the background failed", exc_info=error)
            last = list(self.encoder.fail(Internal("an internal error ended the response")))
        try:
            await save(self.encoder.whole, [*self._frames, *last])
        except MullamaError as error:
            _log.error("a response in the background could not be stored: %s", error)
        self.add(last, done=True)

    async def _encode(self, events: AsyncIterator[Sequence[StreamEvent]]) -> list[Frame]:
        """Add the frames of all events but the last ones, which are returned."""
        async with aclosing(cast(Any, events)) as stream:
            async for batch in stream:
                frames = [frame for event in batch for frame in self.encoder.feed(event)]
                if self.encoder.whole is not None:
                    return frames
                self.add(frames)
        raise Internal("the stream ended without its last event")


class BackgroundRuns:
    """The answers that are generated in the background, by the key of their caller and their id."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str | None, str], BackgroundRun] = {}

    def find(self, id: str, caller: Caller) -> BackgroundRun | None:
        """Return the run of this caller's response; None for a response that does not run."""
        return self._runs.get((caller.key, id))

    def check_room(self, most: int) -> None:
        """Raise `Busy` if `most` responses run already."""
        if len(self._runs) >= most:
            raise Busy(f"{most} responses are generated in the background", retry_after=5.0)

    def start(
        self,
        id: str,
        caller: Caller,
        encoder: BackgroundEncoder,
        events: AsyncIterator[Sequence[StreamEvent]],
        save: Save,
    ) -> BackgroundRun:
        """Begin to generate a response."""
        run = self._runs[(caller.key, id)] = BackgroundRun(encoder)
        run.task = asyncio.create_task(run.run(events, save))
        run.task.add_done_callback(lambda _: self._runs.pop((caller.key, id), None))
        return run

    async def cancel(self, run: BackgroundRun, reason: MullamaError | None = None) -> None:
        """End a run and wait until its response is stored. reason: the error that ends it, None for its client."""
        if run.task is not None and not run.task.done():
            run.reason = reason
            run.task.cancel()
            await asyncio.wait({run.task})

    async def close(self, drain_seconds: float) -> None:
        """End all runs, because the server stops; each may complete within this time."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=drain_seconds)
        stopping = Unavailable("the server stopped before the response was complete")
        await asyncio.gather(*(self.cancel(run, stopping) for run in tuple(self._runs.values())))
