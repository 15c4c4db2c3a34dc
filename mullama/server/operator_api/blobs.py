"""The stored files of this server by digest, for other servers. No other file of the machine can be named."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Final, cast

from mullama.dialects.base import Reply
from mullama.errors import Invalid, MullamaError, TransferFailed
from mullama.names import Digest
from mullama.runtime.base import Operator
from mullama.server.http.exchange import Exchange, Rejection
from mullama.server.inflight import Inflight
from mullama.server.operator_api.api import operator_route
from mullama.server.route_table import HttpRoute
from mullama.struct import Struct

_PIECE: Final = 1024**2
"""Bytes of one read from the disk; a thread reads each, so that a slow disk delays this answer alone."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class BlobApi(Struct, frozen=True, kw_only=True):
    """Sends stored files, whole or one range of them."""

    operator: Operator
    inflight: Inflight

    def routes(self) -> list[HttpRoute]:
        """Return the routes, each with its class of access."""
        return [operator_route("GET", "/api/v1/blobs/{digest}", "files", self._send)]

    async def _send(self, exchange: Exchange, params: Mapping[str, str]) -> None:
        digest = Digest.parse(params["digest"])
        descriptor = await asyncio.to_thread(self.operator.open_file, digest.text)
        # A stop of the server does not wait for a file: the other server continues it, or has it from elsewhere.
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.inflight.followers.add(task)
        try:
            async with self.inflight.track(exchange):
                await _answer(exchange, digest, descriptor)
        except MullamaError as error:
            if not exchange.response_started:
                raise
            # The length is announced, so that an end before it is no complete file.
            exchange.notes.error = error
            exchange.close = True
        finally:
            self.inflight.followers.discard(task)
            os.close(descriptor)


async def _answer(exchange: Exchange, digest: Digest, descriptor: int) -> None:
    size, tag = os.fstat(descriptor).st_size, f'"{digest}"'
    headers = {"etag": tag, "accept-ranges": "bytes", "cache-control": "private, immutable"}
    if exchange.headers.get("if-none-match", "") in (tag, "*"):
        await exchange.reply(Reply(status=304, headers=headers))
        return
    asked = exchange.headers.get("range") if exchange.headers.get("if-range", tag) == tag else None
    begin, end = 0, size
    if (found := read_range(asked, size)) is not None:
        begin, end = found
        if begin >= end:
            error = Invalid(f"the file has {size} bytes, and the range {(asked or '')[:60]!r} none of them")
            raise Rejection(416, error, headers={"content-range": f"bytes */{size}"})
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    await exchange.begin_file(200 if found is None else 206, {**headers, "content-length": str(end - begin)})
    if exchange.method != "HEAD":
        await _write(exchange, descriptor, begin, end)
    await exchange.end()


async def _write(exchange: Exchange, descriptor: int, begin: int, end: int) -> None:
    """Send bytes of a file. The next piece is read while the client takes this one."""
    piece = await asyncio.to_thread(os.pread, descriptor, min(_PIECE, end - begin), begin)
    while begin < end:
        if not piece:
            raise TransferFailed("the file became shorter while it was sent")
        if not exchange.authorized():
            raise TransferFailed("the key of this transfer is no longer valid")
        begin += len(piece)
        following = asyncio.ensure_future(asyncio.to_thread(os.pread, descriptor, min(_PIECE, end - begin), begin))
        try:
            await exchange.write(piece)
        finally:
            piece = await following  # also after a disconnect, because the descriptor is closed next


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the byte after its last one; both are equal for a range without a byte.

    text: the header Range; None, another unit and several ranges ask for the whole file, which is None. size: in bytes.
    """
    match = _RANGE.fullmatch((text or "").replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return min(int(first), size), min(int(last) + 1 if last else size, size)
