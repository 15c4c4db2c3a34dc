"""The end of a request as it is metered: its tokens, its time and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mullama.chat.types import Usage
from mullama.struct import Struct

RequestResult = Literal["ok", "error", "cancelled"]


class Metered(Struct, frozen=True, kw_only=True):
    """One request that has ended. A request that is made once more after its worker died ends twice."""

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


Meter = Callable[[Metered], None]
