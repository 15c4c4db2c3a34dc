"""Prompt lookup: drafts repeat what followed the same tokens before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.sampling.prompt_lookup import LONGEST_GUESS, PromptLookup


def test_a_guess_is_what_followed_the_same_tokens_last_time() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2]) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6]) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3]) == [4, 5, 6, 1, 2, 3]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3], 2) == [4, 5]


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 8))
def test_guesses_do_not_depend_on_how_the_text_grew(tokens: list[int], step: int) -> None:
    grown, whole = PromptLookup(), PromptLookup()
    for end in range(0, len(tokens), step):
        grown.guess(tokens[:end])
    guess = grown.guess(tokens)
    assert guess == whole.guess(tokens)
    assert len(guess) <= LONGEST_GUESS
    if guess:
        run = tokens[-3:] + guess
        assert any(tokens[i : i + len(run)] == run for i in range(len(tokens)))
