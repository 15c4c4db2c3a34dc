"""Reading of request bodies: bounded in size, time, expansion, and in the sum over all requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self

from mullama.errors import Invalid, TimedOut, TooLarge, Unavailable
from mullama.names import JSONValue
from mullama.server.http.exchange import Exchange, Rejection
from mullama.server.http.inflate import inflater
from mullama.server.http.limits import Bounds
from mullama.server.http.strict_json import parse
from mullama.units import size


class BodyBudget:
    """Limits the bytes of all requests in progress: their bodies, and the media that are fetched for them. Threads may
    share it.

    kept: the things that are limited, and the place where they are kept, for the error.
    """

    def __init__(self, size: int, kept: str = "the bodies of the requests in progress use all memory") -> None:
        self._free = size
        self._kept = kept
        self._lock = threading.Lock()

    def share(self) -> BodyShare:
        """Return a context manager for the bytes of one request."""
        return BodyShare(self)

    def take(self, count: int) -> None:
        """Reserve bytes, or raise `Unavailable`."""
        with self._lock:
            free = count <= self._free
            if free:
                self._free -= count
        if not free:
            raise Unavailable(
                f"{self._kept} reserved for them",
                hint="try again when other requests have ended",
                retry_after=1.0,
            )

    def give(self, count: int) -> None:
        with self._lock:
            self._free += count


class BodyShare:
    """The bytes that one request reserved; the end of the block releases them."""

    def __init__(self, pool: BodyBudget) -> None:
        self._pool = pool
        self._held = 0

    def take(self, count: int) -> None:
        """Reserve more bytes, or raise `Unavailable`."""
        self._pool.take(count)
        self._held += count

    def hold(self, count: int) -> None:
        """Reserve so many bytes in all, or raise `Unavailable` if they are more than before and there is no room."""
        if count > self._held:
            self.take(count - self._held)
        else:
            self._pool.give(self._held - count)
            self._held = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.give(self._held)
        self._held = 0


async def read_body(exchange: Exchange, share: BodyShare, *, limit: int, bounds: Bounds) -> bytes:
    """Return the body, without its compression."""
    check_type(exchange)
    unpack = inflater(exchange.headers.get("content-encoding", ""), limit)
    plain = bytearray()
    async for piece in pieces(exchange, limit=limit, bounds=bounds):
        unpacked = unpack.feed(piece)
        share.take(len(unpacked))
        plain += unpacked
    plain += unpack.end()
    return bytes(plain)


def parse_body(raw: bytes, depth: int) -> JSONValue:
    """Return the value of a body; None for an empty one."""
    return parse(raw, depth) if raw.strip() else None


def check_type(exchange: Exchange) -> None:
    """Raise for a browser's request that is not JSON. Browsers send JSON across origins only after a CORS preflight."""
    media = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "origin" not in exchange.headers or not exchange.has_body:
        return
    if media != "application/json" and not media.endswith("+json"):
        error = Invalid(
            f"a page in a browser must send application/json, not {media[:80] or 'nothing'!r}",
            hint="set the Content-Type header",
        )
        raise Rejection(415, error, close=True)


async def pieces(
    exchange: Exchange, *, limit: int, bounds: Bounds, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives. A long body is a 413, a slow one a 408; both close the connection."""
    if not exchange.has_body:
        return
    announced = exchange.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    began, received, more = clock(), 0, True
    while more:
        try:
            async with asyncio.timeout(bounds.body_idle):
                message = await exchange.receive()
        except TimeoutError as error:
            raise _slow() from error
        piece, more = message.get("body", b""), message.get("more_body", False)
        received += len(piece)
        if received > limit:
            raise _too_large(limit)
        if more and clock() - began > bounds.body_idle + received / bounds.body_rate:
            raise _slow()
        if piece:
            yield piece


def _too_large(limit: int) -> Rejection:
    error = TooLarge(
        f"the body is larger than {size(limit)}",
        hint="send less, or raise server.limits.body in the manifest",
    )
    return Rejection(413, error, close=True)


def _slow() -> Rejection:
    error = TimedOut("the body arrived too slowly", hint="send it without pauses")
    return Rejection(408, error, close=True)
