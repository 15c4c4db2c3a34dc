"""The outputs of a worker for one request. All that arrived since the last read are taken together."""

from __future__ import annotations

import asyncio

from mullama.engines.base import Output
from mullama.errors import MullamaError


class Inbox:
    """A queue of outputs in order of arrival, perhaps ended by a failure. For one reader."""

    def __init__(self) -> None:
        self._outputs: list[Output] = []
        self._failure: MullamaError | None = None
        self._arrival: asyncio.Future[None] | None = None

    def put(self, output: Output) -> None:
        """Add an output; ignored after a failure. The queue is bounded by the length of one completion."""
        if self._failure is None:
            self._outputs.append(output)
            self._wake()

    def fail(self, error: MullamaError) -> None:
        """End the queue with an error, raised after the outputs before it. The first failure counts."""
        if self._failure is None:
            self._failure = error
            self._wake()

    async def take(self) -> list[Output]:
        """Wait for an output, then return all that arrived. Raises the failure when no output is left before it."""
        while not self._outputs:
            if self._failure is not None:
                raise self._failure
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        outputs, self._outputs = self._outputs, []
        return outputs

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():  # done: its reader was cancelled
            arrival.set_result(None)
