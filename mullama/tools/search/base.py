"""The seam of the search engines, and the values of a search."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mullama.struct import Struct

Vector = Sequence[float]
Embed = Callable[[str, Sequence[str]], Awaitable[tuple[Vector, Sequence[Vector]]]]
"""Returns the vector of a question and those of passages. Raises `MullamaError` where the model does not answer."""


class Hit(Struct, frozen=True, kw_only=True):
    """One page that a search engine found."""

    url: str
    title: str = ""
    snippet: str = ""
    """The engine's extract of the page, without markup."""
    date: str = ""
    """Date of the page as the engine writes it."""


class SearchEngine(Protocol):
    """One search engine. The methods belong to the event loop."""

    async def search(self, query: str, count: int, *, seconds: float) -> tuple[Hit, ...]:
        """Return at most `count` pages, best first.

        seconds: the most time. Raises `ToolsUnavailable` for an engine that cannot be reached or answers in another
        form, `TimedOut`, `Busy` for one that wants fewer requests, and `Denied` for a key that it refuses.
        """
        ...
