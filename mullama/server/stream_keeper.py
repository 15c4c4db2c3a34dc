"""The streams that outlive their connection: kept for a while, found by their conversation, and bounded in memory.

A request with the header `X-Conversation-Id` is answered into a `KeptStream` by a task of its own, as if that were its
connection; the real connection is the stream's first reader. As in llama-server, a conversation has at most one stream,
a newer one replaces it, and only a request to cancel ends its generation.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, MutableMapping
from contextlib import aclosing

from mullama.dialects.base import Frame
from mullama.dialects.resumable_streams import (
    CONVERSATION_HEADER,
    CancelStream,
    FindStreams,
    ResumeStream,
    StreamStates,
)
from mullama.errors import Invalid, NotFound
from mullama.manifest.spec import ResumableStreams
from mullama.runtime.base import Caller
from mullama.server.http.exchange import Exchange
from mullama.server.inflight import Inflight
from mullama.server.kept_stream import Answer, KeptStream, OffsetLost
from mullama.server.streams import to_bytes

LONGEST_ID = 512
"""Characters of the id of a conversation: a lookup compares all its beginnings before `::`."""
_OWN_BYTES = 2048
"""The bytes of a stream without its content, about, with its id."""
_LONGEST_TIMER = 86400.0  # seconds; streams are looked through at each use as well


class StreamKeeper:
    """The kept streams of all callers, each private to the API key that started it. Belongs to the event loop.

    settings: returns those of the manifest in force. counts: the metric of what happens to streams, by event.
    """

    def __init__(self, settings: Callable[[], ResumableStreams], counts: MutableMapping[str, int]) -> None:
        self._settings, self._counts = settings, counts
        # By their start. An ordered dict finds its first items at once, also after many were removed there.
        self._streams: OrderedDict[tuple[str | None, str], KeptStream] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    @property
    def keeps(self) -> bool:
        """Return whether streams are kept."""
        return self._settings().keep > 0

    def start(self, conversation: str, exchange: Exchange, answer: Answer) -> KeptStream:
        """Begin to answer a request into a new stream of this conversation, which replaces an older one.

        exchange: of the request; its notes and headers are those of the answer too. Raises `Invalid` for a long id.
        """
        if len(conversation) > LONGEST_ID:
            raise Invalid(
                f"{CONVERSATION_HEADER} has {len(conversation)} characters, and {LONGEST_ID} is the most",
                hint="send a shorter id, such as a UUID",
                field=CONVERSATION_HEADER,
            )
        self._expire()
        key = (exchange.caller.key, conversation)
        if key in self._streams:
            self._remove(key).cancel()
        stream = self._streams[key] = KeptStream(conversation, self._grown)
        self._bytes += _OWN_BYTES
        task = asyncio.create_task(stream.run(answer, exchange.redirected(stream.receive, stream.send)))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(task, key, stream))
        self._count("kept")
        return stream

    def _ended(self, task: asyncio.Task[None], key: tuple[str | None, str], stream: KeptStream) -> None:
        self._tasks.discard(task)
        if not stream.total and self._streams.get(key) is stream:  # a refused request leaves nothing
            self._remove(key)
        if (keep := self._settings().keep) < _LONGEST_TIMER:
            asyncio.get_running_loop().call_later(keep, self._expire)

    def find(self, operation: ResumeStream, caller: Caller) -> KeptStream:
        """Return the stream to read on. Raises `NotFound`, and `Invalid` for bytes that are no longer kept."""
        self._expire()
        stream = self._streams.get((caller.key, operation.conversation))
        if stream is None:
            raise NotFound("the stream is not found: it was cancelled or has expired", hint="send the request again")
        if operation.offset < stream.dropped:
            self._count("lost")
            raise Invalid(
                f"the stream is kept from byte {stream.dropped} on only", hint="send the request again", field="from"
            )
        self._count("resumed")
        return stream

    def look_up(self, operation: FindStreams, caller: Caller) -> StreamStates:
        """Return the streams of the conversations, and those of their variants `ID::MODEL`, that the caller started."""
        self._expire()
        own = [stream for (key, _), stream in self._streams.items() if key == caller.key]
        wanted = set(operation.conversations)
        return StreamStates(
            streams=tuple(s.state for s in own if s.conversation in wanted or _base_of(s.conversation, wanted))
        )

    def cancel(self, operation: CancelStream, caller: Caller) -> None:
        """End the generation of a stream and drop it, if there is one."""
        key = (caller.key, operation.conversation)
        if key in self._streams:
            self._remove(key).cancel()
            self._count("cancelled")

    async def send(self, exchange: Exchange, stream: KeptStream, offset: int, inflight: Inflight) -> None:
        """Answer with the bytes of a stream from an offset on. The end of the connection does not end the stream."""
        async with inflight.watch(exchange):
            await stream.begun()
            await exchange.begin("text/event-stream")
            try:
                async with aclosing(stream.read(offset)) as pieces:
                    async for data in pieces:
                        await exchange.write(data)
            except OffsetLost:
                self._count("lost")
                error = exchange.notes.error = Invalid("the client reads the stream too slowly")
                body = exchange.error_format.error(error, exchange.request_id).body
                await exchange.write(to_bytes([Frame(data=body)], "text/event-stream"))
        await exchange.end()

    def _grown(self, change: int) -> None:
        """Note a change of the kept bytes. Beyond the bound, drop the oldest ended streams, then beginnings of others.

        A stream that was replaced or cancelled no longer changes. This runs at each piece of a stream, so it looks at
        no more streams than those that are generated and those that it drops.
        """
        self._bytes += change
        if change <= 0:
            return
        size = self._settings().size
        while self._bytes > size:
            oldest = next((key for key, stream in self._streams.items() if stream.ended is not None), None)
            if oldest is None:
                break
            self._remove(oldest)
            self._count("dropped")
        else:
            return
        for stream in tuple(self._streams.values()):
            stream.drop(self._bytes - size)

    def _expire(self) -> None:
        """Drop the streams that ended too long ago."""
        limit = time.monotonic() - self._settings().keep
        for key, stream in tuple(self._streams.items()):
            if stream.ended is not None and stream.ended <= limit:
                self._remove(key)

    def _remove(self, key: tuple[str | None, str]) -> KeptStream:
        stream = self._streams.pop(key)
        self._bytes -= stream.size + _OWN_BYTES
        return stream

    def _count(self, event: str) -> None:
        self._counts[event] = self._counts.get(event, 0) + 1

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def bytes(self) -> int:
        """The bytes of all kept streams."""
        return self._bytes

    async def close(self, drain_seconds: float) -> None:
        """End the streams that are generated, because the server stops; each may complete within this time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _base_of(conversation: str, wanted: Collection[str]) -> bool:
    """Return whether the conversation is a variant `ID::MODEL` of one of these ids."""
    place = conversation.find("::")
    while place >= 0:
        if conversation[:place] in wanted:
            return True
        place = conversation.find("::", place + 1)
    return False
