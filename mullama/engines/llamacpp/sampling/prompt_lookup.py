"""Prompt lookup decoding: drafts the tokens that followed the last occurrence of the same few tokens."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3  # tokens that must match
LONGEST_GUESS = 8


class PromptLookup:
    """Indexes where each run of `NGRAM` tokens last ended; the total time is linear in the text."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM

    def guess(self, tokens: Sequence[int], most: int = LONGEST_GUESS) -> list[int]:
        """Return at most `most` tokens that may follow; none if the last tokens never occurred before."""
        if len(tokens) < NGRAM:
            return []
        for end in range(self._indexed, len(tokens)):
            self._after[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(len(tokens), NGRAM)
        start = self._after.get(tuple(tokens[-NGRAM:]))
        return [] if start is None else list(tokens[start : start + most])
