"""Streamed answers: relays the events of one request to its client as server-sent events or lines of JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from mullama.chat.inventory import ModelStateReport, TaskStatus
from mullama.chat.transcription import Transcribed
from mullama.chat.types import Completed, Started
from mullama.dialects.base import Frame, StreamEncoder, StreamEvent
from mullama.dialects.operator_errors import error_tree
from mullama.errors import Denied, Internal, MullamaError
from mullama.names import JSONValue
from mullama.offload import LARGE, compute
from mullama.server.http.exchange import ClientDisconnected, Exchange, Media
from mullama.server.http.limits import Bounds
from mullama.server.http.strict_json import to_json, to_json_parts
from mullama.server.inflight import Inflight

_log = logging.getLogger(__name__)


async def relay(
    exchange: Exchange,
    stream: AsyncIterator[Sequence[StreamEvent]],
    encoder: StreamEncoder,
    inflight: Inflight,
    bounds: Bounds,
    remember: Callable[[JSONValue], Awaitable[None]],
) -> None:
    """Answer with the stream. `remember` is called with the complete reply before the last frame is sent.

    An error before the first event is raised, so that the answer has its status; a later error becomes the
    dialect's error event. A client that disconnects closes `stream` at once.
    """
    try:
        async with inflight.track(exchange), aclosing(cast(Any, stream)):
            await _write_events(exchange, stream, encoder, bounds, remember)
    except ClientDisconnected:
        raise
    except Exception as error:
        if not exchange.response_started:
            raise
        await exchange.write(to_bytes(encoder.fail(_public_error(exchange, error)), encoder.media))
    await exchange.end()


async def _write_events(
    exchange: Exchange,
    stream: AsyncIterator[Sequence[StreamEvent]],
    encoder: StreamEncoder,
    bounds: Bounds,
    remember: Callable[[JSONValue], Awaitable[None]],
) -> None:
    try:
        events = await anext(stream)
    except StopAsyncIteration:
        raise Internal("the stream ended before its first event") from None
    media = encoder.media
    if isinstance(events[0], Started):
        exchange.warn(events[0].warnings)
        exchange.answered_by(events[0].effective.model if events[0].effective else "")
    await exchange.begin(media)
    async with Pings(exchange, lambda: to_bytes(encoder.ping(), media), bounds.ping) as pings:
        while True:
            last = events[-1]
            if isinstance(last, Completed | Transcribed):
                # The last frame may repeat the whole answer.
                size = exchange.bytes_out
                data = await compute(size, _encoded, encoder, events, to_json_parts if size >= LARGE else to_json)
                _note_usage(exchange, last)
                await remember(encoder.whole)
            else:
                data = _encoded(encoder, events, to_json)
            await pings.write(data)
            try:
                events = await anext(stream)
            except StopAsyncIteration:
                break
    if not isinstance(last, Completed | Transcribed | TaskStatus | ModelStateReport):
        raise Internal("the stream ended without its last event")


def _encoded(encoder: StreamEncoder, events: Sequence[StreamEvent], write: Callable[[JSONValue], bytes]) -> bytes:
    return to_bytes([frame for event in events for frame in encoder.feed(event)], encoder.media, write)


def _note_usage(exchange: Exchange, completed: Completed | Transcribed) -> None:
    exchange.notes.prompt_tokens = completed.usage.prompt_tokens
    exchange.notes.completion_tokens = completed.usage.completion_tokens


def _public_error(exchange: Exchange, error: Exception) -> MullamaError:
    """Return the error to send. One that is not a `MullamaError` is a bug: its details go to the log only."""
    if not isinstance(error, MullamaError):
        _log.error("request %s failed in its stream", exchange.request_id, exc_info=error)
        error = Internal("an internal error ended the stream", hint=f"request {exchange.request_id}")
    exchange.notes.error = error
    return error


def to_bytes(frames: Iterable[Frame], media: Media, write: Callable[[JSONValue], bytes] = to_json) -> bytes:
    """Return all frames as one piece for one write, so that no event is split between writes."""
    frame_bytes = _event if media == "text/event-stream" else _line
    return b"".join([frame_bytes(frame, write) for frame in frames])


def _event(frame: Frame, write: Callable[[JSONValue], bytes]) -> bytes:
    data = frame.data.encode().replace(b"\n", b"\ndata: ") if isinstance(frame.data, str) else write(frame.data)
    if frame.comment:
        return b": %b\n\n" % data
    name = b"event: %b\n" % frame.event.encode() if frame.event else b""
    return b"%bdata: %b\n\n" % (name, data)


def _line(frame: Frame, write: Callable[[JSONValue], bytes]) -> bytes:
    # NDJSON has no comments, and some readers fail on blank lines.
    return b"" if frame.comment else write(frame.data) + b"\n"


async def replay(
    exchange: Exchange,
    batches: AsyncIterator[Sequence[Frame]],
    encoder: StreamEncoder | None,
    inflight: Inflight,
    bounds: Bounds,
) -> None:
    """Answer with the frames of a stream that does not depend on this client. encoder: writes its pings."""
    media: Media = "text/event-stream"
    async with inflight.track(exchange), aclosing(cast(Any, batches)):
        await exchange.begin(media)
        async with Pings(exchange, lambda: to_bytes(encoder.ping() if encoder else (), media), bounds.ping) as pings:
            async for frames in batches:
                await pings.write(to_bytes(frames, media))
    await exchange.end()


async def report(exchange: Exchange, lines: AsyncIterator[dict[str, Any]], inflight: Inflight) -> None:
    """Answer with lines of JSON. An error before the first line gets a status; a later one is the last line."""
    try:
        async with inflight.track(exchange), aclosing(cast(Any, lines)):
            async for line in lines:
                if not exchange.response_started:
                    await exchange.begin("application/x-ndjson")
                await exchange.write(to_json(line) + b"\n")
    except ClientDisconnected:
        raise
    except Exception as error:
        if not exchange.response_started:
            raise
        tree = error_tree(_public_error(exchange, error), exchange.request_id)
        await exchange.write(to_json({"event": "error", "error": tree}) + b"\n")
    if not exchange.response_started:
        raise Internal("the operation ended without a result")
    await exchange.end()


async def follow(exchange: Exchange, events: AsyncIterator[dict[str, Any]], inflight: Inflight, bounds: Bounds) -> None:
    """Answer with server-sent events, each with its own `id`.

    The stream ends when the client disconnects, when the server stops, and before the first event that its key may
    not read any more.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    inflight.followers.add(task)
    try:
        async with inflight.track(exchange), aclosing(cast(Any, events)):
            await exchange.begin("text/event-stream")
            async with Pings(exchange, lambda: b":\n\n", bounds.ping) as pings:
                await pings.write(b": follow\n\n")  # the client sees at once that it is connected
                async for event in events:
                    if not exchange.authorized():
                        raise Denied("the key of this stream is no longer valid", hint="connect again with another key")
                    await pings.write(b"id: %d\ndata: %b\n\n" % (event["id"], to_json(event)))
    except MullamaError as error:  # the client reconnects and continues after its last event
        exchange.notes.error = error
    finally:
        inflight.followers.discard(task)
    await exchange.end()


class Pings:
    """Writes to the client, and writes `ping()` whenever nothing was written for `every` seconds."""

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
