"""The requests in progress: counts them, and cancels each one when its client disconnects or the server stops."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from mullama.errors import MullamaError
from mullama.server.http.exchange import ClientDisconnected, Exchange


class Inflight:
    """The requests in progress of one app, so that a drain can wait for them and end the rest."""

    def __init__(self) -> None:
        self._scopes: set[RequestScope] = set()
        self.followers: set[asyncio.Task[None]] = set()
        """The tasks of the requests that follow something and have no end of their own: a drain does not wait."""

    def __len__(self) -> int:
        return len(self._scopes)

    def track(self, exchange: Exchange) -> RequestScope:
        """Return a context manager for the work of one request."""
        return RequestScope(exchange, self._scopes)

    def watch(self, exchange: Exchange) -> RequestScope:
        """Return a context manager that ends with the connection of its client; a drain does not end it."""
        return RequestScope(exchange, set())

    def interrupt(self, error: MullamaError) -> None:
        """End all requests in progress: each client receives `error` in its own dialect."""
        for scope in tuple(self._scopes):
            scope.cancel(error)


class RequestScope:
    """A block that ends at once when the client disconnects or `cancel` is called.

    A disconnect raises `ClientDisconnected` from the block, `cancel` its error, at the current await.
    The cost is one task per request and nothing per token.
    """

    def __init__(self, exchange: Exchange, scopes: set[RequestScope]) -> None:
        self._exchange = exchange
        self._scopes = scopes
        self._reason: Exception | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request scope needs a task to cancel")
        self._task = task
        self._cancels_before = task.cancelling()
        self._watcher = asyncio.create_task(self._watch_connection())
        self._scopes.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._scopes.discard(self)
        self._watcher.cancel()
        reason = self._reason
        if reason is None:
            return
        # Another cancellation of the same task (the server's last resort) takes precedence over ours.
        ours = self._task.uncancel() <= self._cancels_before
        if ours and (kind is None or isinstance(error, asyncio.CancelledError)):
            raise reason from None

    def cancel(self, reason: Exception) -> None:
        """End the block with this error, unless it ends already or the answer is complete."""
        if self._reason is None and not self._exchange.finished:
            self._reason = reason
            self._task.cancel()

    async def _watch_connection(self) -> None:
        await self._exchange.wait_disconnected()
        self.cancel(ClientDisconnected())
