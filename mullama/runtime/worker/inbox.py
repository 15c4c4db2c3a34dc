"""What workers say to one request, on its way: all that came since the last look is taken together."""

from __future__ import annotations

import asyncio

from mullama.engines.base import Output
from mullama.errors import MullamaError


class Inbox:
    """Outputs in the order in which they came, and then perhaps the failure that ends them. For one reader."""

    def __init__(self) -> None:
        self._outputs: list[Output] = []
        self._failure: MullamaError | None = None
        self._news: asyncio.Future[None] | None = None

    def put(self, output: Output) -> None:
        """Never waits: who reads slowly is bounded by what one request may ask for. Nothing follows a failure."""
        if self._failure is None:
            self._outputs.append(output)
            self._wake()

    def fail(self, error: MullamaError) -> None:
        """What came so far is still to be taken; the first failure counts."""
        if self._failure is None:
            self._failure = error
            self._wake()

    async def take(self) -> list[Output]:
        """What is there, at least one; waits for it. Raises the failure once all that came before it was taken."""
        while not self._outputs:
            if self._failure is not None:
                raise self._failure
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        outputs, self._outputs = self._outputs, []
        return outputs

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():  # a reader that was cancelled has left its future behind
            news.set_result(None)
