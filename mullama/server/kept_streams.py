"""Streams that outlive their connection: their bytes are kept for a while, and their client reads on from an offset.

A request with the header `X-Conversation-Id` is answered into a `KeptStream` by a task of its own, as if that were its
connection; the real connection is the stream's first reader. As in llama-server, a conversation has at most one stream,
a newer one replaces it, and only a request to cancel ends its generation.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, MutableMapping
from contextlib import aclosing

from mullama.dialects.base import Frame
from mullama.dialects.resumable_streams import (
    CONVERSATION_HEADER,
    CancelStream,
    FindStreams,
    ResumeStream,
    StreamState,
    StreamStates,
)
from mullama.errors import Invalid, MullamaError, NotFound, Unavailable
from mullama.manifest.spec import ResumableStreams
from mullama.runtime.base import Caller
from mullama.server.http.exchange import ClientDisconnected, Exchange, Message
from mullama.server.inflight import Inflight
from mullama.server.streams import to_bytes

LONGEST = 4 * 1024 * 1024
"""Bytes that are kept of one stream, as in llama-server; its beginning is dropped first."""
_LONGEST_TIMER = 86400.0  # seconds; streams are looked through at each use as well
LONGEST_ID = 512
"""Characters of the id of a conversation: a lookup compares all its beginnings before `::`."""
_OWN_BYTES = 2048
"""The bytes of a stream without its content, about, with its id."""

Answer = Callable[[Exchange], Awaitable[None]]
"""Answers a request on an exchange."""


class OffsetLost(Exception):
    """The bytes at this offset are no longer kept."""


class KeptStream:
    """The bytes of one stream, for any number of readers. Offsets count from its first byte."""

    def __init__(self, conversation: str, grown: Callable[[int], None]) -> None:
        """grown: is called with the change of the kept bytes."""
        self.conversation = conversation
        self.started = int(time.time())
        self.completed = 0
        """Unix seconds; 0 while it is generated."""
        self.ended: float | None = None
        """Monotonic seconds; None while it is generated."""
        self.dropped = self.size = 0
        """Bytes of the beginning that are no longer kept, and bytes that are."""
        self._grown = grown
        self._chunks: deque[bytes] = deque()
        self._begun, self._gone, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._has_status = False
        self._error: Exception = _cancelled()

    @property
    def total(self) -> int:
        return self.dropped + self.size

    # The side of the answer: an ASGI connection whose client waits until it cancels.

    async def receive(self) -> Message:
        """Wait until the stream is cancelled, which its answer takes for the end of its connection."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, object]) -> None:
        """Keep the bytes of a message."""
        if self.ended is not None:
            return
        self._has_status = True
        self._begun.set()
        data = message.get("body")
        if isinstance(data, bytes) and data:
            self._chunks.append(data)
            self.size += len(data)
            self._grown(len(data))
            if self.size > LONGEST:
                self.drop(self.size - LONGEST)
            self._wake()

    async def run(self, answer: Answer, exchange: Exchange) -> None:
        """Answer the request into this stream."""
        try:
            await answer(exchange)
        except ClientDisconnected:
            pass  # it was cancelled
        except asyncio.CancelledError:
            self._error = Unavailable("the server is stopping", hint="try again later", retry_after=5.0)
            raise
        except Exception as error:  # noqa: BLE001 - the reader of its beginning raises it
            self._error = error
        finally:
            self.finish()

    def finish(self) -> None:
        """End the stream: readers get the bytes that they have not read, and their end."""
        if self.ended is None:
            self.ended, self.completed = time.monotonic(), int(time.time())
        self._begun.set()
        self._wake()

    def cancel(self) -> None:
        """End the generation."""
        self._gone.set()
        self.finish()

    def drop(self, count: int) -> None:
        """Keep at most all but these bytes of the beginning; whole pieces are dropped."""
        while count > 0 and self._chunks:
            gone = len(self._chunks.popleft())
            self.dropped += gone
            self.size -= gone
            count -= gone
            self._grown(-gone)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # The side of readers.

    async def begun(self) -> None:
        """Wait until the answer has a status; raise the error of an answer without a stream."""
        await self._begun.wait()
        if not self._has_status:
            raise self._error

    async def read(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from an offset to the end of the stream. Raises `OffsetLost`, also between two pieces."""
        while True:
            changed = self._changed
            if offset < self.dropped:
                raise OffsetLost
            if data := self._from(offset):
                offset += len(data)
                yield data
            elif self.ended is not None:
                return
            else:
                await changed.wait()

    def _from(self, offset: int) -> bytes:
        """Return the kept bytes from an offset on, which is not before them."""
        if offset >= self.total:
            return b""
        found: list[bytes] = []
        end = self.total
        for chunk in reversed(self._chunks):  # readers are near the end
            begin = end - len(chunk)
            found.append(chunk[max(0, offset - begin) :])
            if begin <= offset:
                break
            end = begin
        return b"".join(reversed(found))

    @property
    def state(self) -> StreamState:
        return StreamState(
            conversation=self.conversation, started=self.started, completed=self.completed, total=self.total
        )


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


def _cancelled() -> MullamaError:
    return Invalid("the request was cancelled: its stream was ended, or a newer one of its conversation replaces it")
