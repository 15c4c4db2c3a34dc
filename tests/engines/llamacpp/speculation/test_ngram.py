"""n-gram drafts: what followed the longest earlier occurrence of the last tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.speculation.drafter import Ask, Guesses
from mullama.engines.llamacpp.speculation.ngram import LONGEST_MATCH, NGRAM, NgramDrafter, NgramLookup

TEXTS = st.lists(st.integers(0, 2), max_size=60)


def draft(tokens: Sequence[int], most: int = 6) -> Guesses:
    return NgramDrafter().propose([Ask(key=1, tokens=tokens, most=most)])[0]


@pytest.mark.parametrize(
    ("tokens", "most", "guesses", "evidence"),
    [
        ([], 6, (), 0),
        ([1, 2], 6, (), 0),
        ([1, 2, 3, 4, 5, 6], 6, (), 0),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], 6, (4, 5, 6, 1, 2, 3), 3),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], 2, (4, 5), 3),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], 0, (), 0),
        ([9, 1, 2, 3, 7, 8, 1, 2, 3, 5, 9, 1, 2, 3], 2, (7, 8), 4),  # the longer match, although another is later
        ([1, 2, 3, 7, 1, 2, 3, 5, 6, 1, 2, 3], 2, (5, 6), 3),  # of equal ones the latest
        ([1, 1, 1, 1], 5, (1, 1, 1, 1, 1), 3),  # the text goes on with itself
        ([5, 1, 2, 1, 2, 1, 2], 5, (1, 2, 1, 2, 1), 4),
    ],
)
def test_a_guess_is_what_followed_the_longest_match(
    tokens: list[int], most: int, guesses: tuple[int, ...], evidence: int
) -> None:
    assert draft(tokens, most) == Guesses(tokens=guesses, evidence=evidence)


@given(TEXTS)
def test_a_match_is_one_by_the_definition(tokens: list[int]) -> None:
    place, length = NgramLookup().find(tokens)
    matches = {
        end: sum(1 for _ in iter_equal(tokens, end))
        for end in range(NGRAM, len(tokens))
        if tokens[end - NGRAM : end] == tokens[-NGRAM:]
    }
    assert (place > 0) == bool(matches)
    if place:
        assert min(matches[place], LONGEST_MATCH) == length >= NGRAM


def iter_equal(tokens: list[int], end: int) -> Sequence[int]:
    same = 0
    while same < end and tokens[end - same - 1] == tokens[len(tokens) - same - 1]:
        same += 1
    return range(same)


@given(TEXTS, st.integers(1, 8))
def test_guesses_do_not_depend_on_how_the_text_grew(tokens: list[int], step: int) -> None:
    grown = NgramDrafter()
    for end in range(0, len(tokens), step):
        grown.propose([Ask(key=1, tokens=tokens[:end], most=6)])
    assert grown.propose([Ask(key=1, tokens=tokens, most=6)]) == [draft(tokens)]


def test_each_request_has_its_own_text() -> None:
    drafter = NgramDrafter()
    asks = [Ask(key=1, tokens=[1, 2, 3, 4, 1, 2, 3], most=1), Ask(key=2, tokens=[1, 2, 3, 5, 1, 2, 3], most=1)]
    assert [d.tokens for d in drafter.propose(asks)] == [(4,), (5,)]
    drafter.end(1)
    assert [d.tokens for d in drafter.propose([Ask(key=1, tokens=[1, 2, 3], most=1)])] == [()]
