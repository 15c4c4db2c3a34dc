"""Carries the events of one request to its client as a stream: first event, frames, pings, the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from mullama.chat.inventory import TaskStatus
from mullama.chat.types import Completed, Started
from mullama.dialects.base import StreamEncoder, StreamEvent
from mullama.dialects.operator_errors import error_tree
from mullama.errors import Internal, MullamaError
from mullama.names import JSONValue
from mullama.server.http.exchange import ClientDisconnected, Exchange
from mullama.server.http.framing import to_bytes, to_json
from mullama.server.http.limits import Bounds
from mullama.server.inflight import Inflight

_log = logging.getLogger(__name__)


async def relay(
    exchange: Exchange,
    stream: AsyncIterator[Sequence[StreamEvent]],
    encoder: StreamEncoder,
    inflight: Inflight,
    bounds: Bounds,
    remember: Callable[[JSONValue], None],
) -> None:
    """Answer with the stream; `remember` gets the data of its last frame just before the client does.

    What fails before the first event is raised, so that it becomes a real status; what fails later
    becomes the dialect's own error event. A client that leaves closes `stream` at once.
    """
    try:
        async with inflight.lifeline(exchange), aclosing(cast(Any, stream)):
            await _pump(exchange, stream, encoder, bounds, remember)
    except ClientDisconnected:
        raise
    except Exception as error:
        if not exchange.begun:
            raise
        await exchange.write(to_bytes(encoder.fail(_known(exchange, error)), encoder.media))
    await exchange.end()


async def _pump(
    exchange: Exchange,
    stream: AsyncIterator[Sequence[StreamEvent]],
    encoder: StreamEncoder,
    bounds: Bounds,
    remember: Callable[[JSONValue], None],
) -> None:
    try:
        events = await anext(stream)
    except StopAsyncIteration:
        raise Internal("the answer ended before it began") from None
    media = encoder.media
    if isinstance(events[0], Started):
        exchange.warn(events[0].warnings)
    await exchange.begin(media)
    async with Pings(exchange, lambda: to_bytes(encoder.ping(), media), bounds.ping) as pings:
        while True:
            frames = [frame for event in events for frame in encoder.feed(event)]
            last = events[-1]
            if isinstance(last, Completed):
                _count(exchange, last)
                if frames:
                    remember(frames[-1].data)
            await pings.write(to_bytes(frames, media))
            try:
                events = await anext(stream)
            except StopAsyncIteration:
                break
    if not isinstance(last, Completed | TaskStatus):
        raise Internal("the answer stopped before its end")


def _count(exchange: Exchange, completed: Completed) -> None:
    exchange.notes.prompt_tokens = completed.usage.prompt_tokens
    exchange.notes.completion_tokens = completed.usage.completion_tokens


def _known(exchange: Exchange, error: Exception) -> MullamaError:
    """An error that a dialect can say; whatever is not ours is a bug, told without its details."""
    if not isinstance(error, MullamaError):
        _log.error("request %s failed in its stream", exchange.request_id, exc_info=error)
        error = Internal("an internal error ended the answer", hint=f"request {exchange.request_id}")
    exchange.notes.error = error
    return error


async def report(exchange: Exchange, lines: AsyncIterator[dict[str, Any]], inflight: Inflight) -> None:
    """Progress as lines of JSON. A failure before the first line is a status, later it is the last line."""
    try:
        async with inflight.lifeline(exchange), aclosing(cast(Any, lines)):
            async for line in lines:
                if not exchange.begun:
                    await exchange.begin("application/x-ndjson")
                await exchange.write(to_json(line) + b"\n")
    except ClientDisconnected:
        raise
    except Exception as error:
        if not exchange.begun:
            raise
        tree = error_tree(_known(exchange, error), exchange.request_id)
        await exchange.write(to_json({"event": "error", "error": tree}) + b"\n")
    if not exchange.begun:
        raise Internal("the operation ended without a result")
    await exchange.end()


async def follow(exchange: Exchange, events: AsyncIterator[dict[str, Any]], inflight: Inflight, bounds: Bounds) -> None:
    """Events that carry their own `id`, until the client leaves or the server stops."""
    try:
        async with inflight.lifeline(exchange), aclosing(cast(Any, events)):
            await exchange.begin("text/event-stream")
            async with Pings(exchange, lambda: b":\n\n", bounds.ping) as pings:
                await pings.write(b": follow\n\n")  # so that the client sees at once that it is heard
                async for event in events:
                    await pings.write(b"id: %d\ndata: %b\n\n" % (event["id"], to_json(event)))
    except MullamaError as error:  # whoever follows asks again, from the last event on
        exchange.notes.error = error
    await exchange.end()


class Pings:
    """Writes, and writes what `ping` gives whenever nothing was written for `every` seconds."""

    def __init__(self, exchange: Exchange, ping: Callable[[], bytes], every: float) -> None:
        self._exchange = exchange
        self._ping = ping
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()

    async def write(self, data: bytes) -> None:
        self._last = self._loop.time()
        await self._exchange.write(data)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def _keep_alive(self) -> None:
        while True:
            silent = self._loop.time() - self._last
            if silent >= self._every:
                await self.write(self._ping())
            else:
                await asyncio.sleep(self._every - silent)
