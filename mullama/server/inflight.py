"""The requests in progress: how many, and how each is ended from outside."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from mullama.errors import MullamaError
from mullama.server.http.exchange import ClientDisconnected, Exchange


class Inflight:
    """Every running request of one app, so that a drain can count them and end those left over."""

    def __init__(self) -> None:
        self._lines: set[RequestScope] = set()

    def __len__(self) -> int:
        return len(self._lines)

    def lifeline(self, exchange: Exchange) -> RequestScope:
        return RequestScope(exchange, self._lines)

    def interrupt(self, error: MullamaError) -> None:
        """End all work in progress: each client sees `error` in its own dialect."""
        for line in tuple(self._lines):
            line.cut(error)


class RequestScope:
    """A block that ends at once when the client leaves, or when `cut` says so.

    Leaving raises `ClientGone` out of the block, `cut` its error, wherever the block was waiting.
    The price is one task per request and nothing per token.
    """

    def __init__(self, exchange: Exchange, lines: set[RequestScope]) -> None:
        self._exchange = exchange
        self._lines = lines
        self._reason: Exception | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lifeline needs a task to end")
        self._task = task
        self._cancels_before = task.cancelling()
        self._watch = asyncio.create_task(self._wait_for_leave())
        self._lines.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._lines.discard(self)
        self._watch.cancel()
        reason = self._reason
        if reason is None:
            return
        ours = self._task.uncancel() <= self._cancels_before
        if ours and (kind is None or isinstance(error, asyncio.CancelledError)):
            raise reason from None

    def cut(self, reason: Exception) -> None:
        """End the block with this error; the first reason counts."""
        if self._reason is None and not self._exchange.finished:
            self._reason = reason
            self._task.cancel()

    async def _wait_for_leave(self) -> None:
        await self._exchange.wait_disconnected()
        self.cut(ClientDisconnected())
