"""Reads the body of a request: bounded in size, in time, in expansion, and over all requests together."""

from __future__ import annotations

import asyncio
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

_LARGE = 256 * 1024


class BodyBudget:
    """The bytes of bodies that all requests in progress may hold together."""

    def __init__(self, size: int) -> None:
        self._free = size

    def share(self) -> BodyShare:
        return BodyShare(self)

    def take(self, count: int) -> None:
        if count > self._free:
            raise Unavailable(
                "the bodies of the requests in progress use all memory set aside for them",
                hint="try again when others have ended",
                retry_after=1.0,
            )
        self._free -= count

    def give(self, count: int) -> None:
        self._free += count


class BodyShare:
    """What one request took of the pool; given back at the end of the block."""

    def __init__(self, pool: BodyBudget) -> None:
        self._pool = pool
        self._held = 0

    def take(self, count: int) -> None:
        self._pool.take(count)
        self._held += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.give(self._held)
        self._held = 0


async def read_json(exchange: Exchange, share: BodyShare, *, limit: int, bounds: Bounds) -> tuple[JSONValue, bytes]:
    """The parsed body and its bytes; (None, b"") when there is none."""
    check_type(exchange)
    unpack = inflater(exchange.headers.get("content-encoding", ""), limit)
    whole = bytearray()
    async for piece in pieces(exchange, limit=limit, bounds=bounds):
        plain = unpack.feed(piece)
        share.take(len(plain))
        whole += plain
    whole += unpack.end()
    raw = bytes(whole)
    if not raw.strip():
        return None, raw
    if len(raw) > _LARGE:  # beside the loop, so that other streams go on meanwhile
        return await asyncio.to_thread(parse, raw, bounds.depth), raw
    return parse(raw, bounds.depth), raw


def check_type(exchange: Exchange) -> None:
    """A browser's page may only send what it could not send without asking first: JSON."""
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
    """The body as it comes in. Too long is a 413, too slow a 408; both end the connection."""
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
    error = TimedOut("the body came too slowly", hint="send it without pauses")
    return Rejection(408, error, close=True)
