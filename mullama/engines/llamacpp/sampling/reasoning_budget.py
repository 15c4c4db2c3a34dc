"""The bound on the tokens of a model's reasoning: beyond it the reasoning is closed, and the answer begins."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.types import ReasoningLimit

_SLACK = 8  # tokens beyond the bound, in which a character may end


class ReasoningBudget:
    """Follows the text of one answer, and gives the tokens that close its reasoning once that is too long.

    closing: the tokens of `ReasoningLimit.closing`.
    """

    def __init__(self, limit: ReasoningLimit, closing: Sequence[int]) -> None:
        self._open, self._close = limit.open.encode(), limit.close.encode()
        self._longest = max(len(self._open), len(self._close))
        self._tokens = limit.tokens
        self._closing: tuple[int, ...] = tuple(closing)
        self._inside, self._over = limit.inside, False
        self._count = 0
        self._tail = b""  # bytes in which a mark may begin

    def add(self, piece: bytes) -> None:
        """Note one token of the answer."""
        if self._over:
            return
        self._tail += piece
        if self._inside:
            self._count += 1
            if self._close in self._tail:
                self._over = True
        elif self._open in self._tail:
            self._inside = True
            self._tail = self._tail[self._tail.index(self._open) + len(self._open) :]
        self._tail = self._tail[-self._longest :]

    @property
    def spent(self) -> bool:
        """True if the reasoning is to be closed now."""
        return self._inside and not self._over and self._count >= self._tokens

    def closing(self, *, within_character: bool) -> tuple[int, ...]:
        """Return the tokens that close the reasoning, once; () while it may continue."""
        if not self.spent or (within_character and self._count < self._tokens + _SLACK):
            return ()
        self._over = True
        return self._closing
