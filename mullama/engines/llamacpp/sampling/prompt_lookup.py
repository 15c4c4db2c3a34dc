"""Guesses the next tokens from what the text said before: what followed the same few tokens last time."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3  # tokens that must agree
LONGEST_GUESS = 8


class PromptLookup:
    """An index of where each run of `NGRAM` tokens ended last; grows with the text, in linear time."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM

    def guess(self, tokens: Sequence[int], most: int = LONGEST_GUESS) -> list[int]:
        """At most `most` tokens that may follow; none where the last ones never occurred before."""
        if len(tokens) < NGRAM:
            return []
        for end in range(self._indexed, len(tokens)):
            self._after[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(len(tokens), NGRAM)
        start = self._after.get(tuple(tokens[-NGRAM:]))
        return [] if start is None else list(tokens[start : start + most])
