"""The end of a request as it is metered: its tokens, its time and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mullama.chat.types import Usage
from mullama.struct import Struct, replace

RequestResult = Literal["ok", "error", "cancelled"]
ToolCallResult = Literal["ok", "error", "timeout", "unavailable", "cancelled"]
"""error: the tool failed. unavailable: its server cannot be reached."""


class Metered(Struct, frozen=True, kw_only=True):
    """One request that has ended, or one attempt to answer it."""

    key: str | None
    """The name of the API key."""
    route: str
    """The name that the request used."""
    model: str
    usage: Usage
    """Also of an answer that was cut off."""
    seconds: float
    """From arrival to the end."""
    result: RequestResult
    follows: bool = False
    """It continues an answer after calls of tools, and is no request of the client's own."""


Meter = Callable[[Metered], None]


class LastAttempt:
    """Meters a request once, at its end: by its last attempt, with the seconds of all of them.

    The tokens of an attempt that failed before the answer, because its worker died or its model was not available, are
    no usage of the client.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._last: Metered | None = None

    def add(self, ended: Metered) -> None:
        """Note the end of an attempt."""
        self._last = ended if self._last is None else replace(ended, seconds=self._last.seconds + ended.seconds)

    def __enter__(self) -> LastAttempt:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._meter(self._last)
