"""Drafts from the text itself: the tokens that followed an earlier occurrence of the same tokens.

Of the earlier occurrences of the last `NGRAM` tokens the one with the longest common past is chosen. llama.cpp has
variants with one fixed length: `ngram-simple` (12 tokens), `ngram-mod` (24). A short length finds the text again soon
after a change, and errs in prose; a long one is the reverse. The longest match has both: its length is the evidence
by which `policy` chooses how many tokens are worth a guess. `benches/speculation.py` compares them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from mullama.engines.llamacpp.speculation.drafter import NO_GUESSES, Ask, DecodedPart, Guesses

NGRAM = 3  # tokens that must match
LONGEST_MATCH = 32  # tokens; longer matches are no better founded
_PLACES = 8  # of the latest occurrences, those that are compared


class NgramLookup:
    """The text of one request with an index of its runs of `NGRAM` tokens; the total time is linear in the text."""

    def __init__(self) -> None:
        self._latest: dict[tuple[int, ...], int] = {}  # the position after each run, where it occurred last
        self._before = array("q", bytes(8 * NGRAM))  # by such a position: that of the occurrence before, 0 for none

    def find(self, tokens: Sequence[int]) -> tuple[int, int]:
        """Return the position after the best earlier occurrence of the last tokens, and the length of the match.

        (0, 0) if the last `NGRAM` tokens never occurred before. Of equal matches the latest is chosen.
        """
        count = len(tokens)
        for end in range(len(self._before), count):
            run = tuple(tokens[end - NGRAM : end])
            self._before.append(self._latest.get(run, 0))
            self._latest[run] = end
        best = longest = 0
        place = self._latest.get(tuple(tokens[-NGRAM:]), 0)
        for _ in range(_PLACES):
            if not place or longest >= LONGEST_MATCH:
                break
            length = _common_past(tokens, place, count)
            if length > longest:
                best, longest = place, length
            place = self._before[place]
        return best, longest


def _common_past(tokens: Sequence[int], one: int, other: int) -> int:
    """Return how many tokens before two positions are equal, from `NGRAM`, which are known to be, to the longest."""
    length = NGRAM
    while length < min(LONGEST_MATCH, one) and tokens[one - length - 1] == tokens[other - length - 1]:
        length += 1
    return length


class NgramDrafter:
    """Implements `Drafter` with one `NgramLookup` for each request."""

    free = True
    evidence = 0
    each = 0.0

    def __init__(self) -> None:
        self._texts: dict[int, NgramLookup] = {}

    def decoded(self, parts: Sequence[DecodedPart], skip: int) -> None:
        pass

    def propose(self, asks: Sequence[Ask]) -> list[Guesses]:
        return [self._propose(ask) for ask in asks]

    def _propose(self, ask: Ask) -> Guesses:
        text = self._texts.setdefault(ask.key, NgramLookup())
        place, length = text.find(ask.tokens)
        if not place or ask.most <= 0:
            return NO_GUESSES
        return Guesses(tokens=_continue(ask.tokens, place, ask.most), evidence=length)

    def end(self, key: int) -> None:
        self._texts.pop(key, None)

    def close(self) -> None:
        self._texts.clear()


def _continue(tokens: Sequence[int], place: int, most: int) -> tuple[int, ...]:
    """Return `most` tokens from a position on. A text that ends before repeats itself."""
    known = list(tokens[place : place + most])
    while len(known) < most:
        known += known[: most - len(known)]
    return tuple(known)
