"""The outputs of a worker, sent at once or together with those of the next step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mullama.engines.base import COALESCE_SECONDS, Output, Piece


class Outbox:
    """Combines pieces of text that follow each other faster than a person sees.

    Every message wakes the server on a core that the next decode would use, and finds its caches cold: with a model
    of 8 ms a token, half as many messages make an answer 3 % faster. clock: returns monotonic seconds.
    """

    def __init__(self, send: Callable[[Sequence[Output]], None], clock: Callable[[], float]) -> None:
        self._send = send
        self._clock = clock
        self._waiting: list[Output] = []
        self._sent = -COALESCE_SECONDS

    def add(self, outputs: Sequence[Output], *, fast: bool) -> None:
        """Say these; mere text may wait for the next step if that is `fast`, but not twice."""
        self._waiting += outputs
        text = all(isinstance(output, Piece) for output in outputs)
        if not (fast and text and self._clock() - self._sent < COALESCE_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Send all waiting outputs."""
        if self._waiting:
            outputs, self._waiting = self._waiting, []
            self._sent = self._clock()
            self._send(outputs)
