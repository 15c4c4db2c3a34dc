"""One stream that outlives its connection: its answer adds bytes, and readers take them from any offset on."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping

from mullama.dialects.resumable_streams import StreamState
from mullama.errors import Invalid, Unavailable
from mullama.server.http.exchange import ClientDisconnected, Exchange, Message

LONGEST = 4 * 1024 * 1024
"""Bytes that are kept of one stream, as in llama-server; its beginning is dropped first."""

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
        self._error: Exception = Invalid(
            "the request was cancelled: its stream was ended, or a newer one of its conversation replaces it"
        )

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
