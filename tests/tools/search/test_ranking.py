"""Passages of a text and their order for a question."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mullama.tools.search.ranking import Passage, best, passages_of, vector_scores, word_scores, words_of


def test_passages_are_whole_paragraphs() -> None:
    text = "One.\n\nTwo words.\n" + "x" * 590
    assert [one.text for one in passages_of(text, 3)] == ["One.\nTwo words.", "x" * 590]
    assert [(one.source, one.order) for one in passages_of(text, 3)] == [(3, 0), (3, 1)]


def test_a_long_paragraph_is_divided_at_its_sentences() -> None:
    text = " ".join(f"Sentence {i} is here." for i in range(40))
    found = passages_of(text, 0, size=100)
    assert all(one.text.endswith(".") and len(one.text) <= 100 for one in found)
    assert " ".join(one.text.replace("\n", " ") for one in found) == text


@given(st.text(max_size=3000), st.integers(1, 200))
def test_no_passage_is_too_long_and_no_word_is_lost(text: str, size: int) -> None:
    found = passages_of(text, 0, size)
    assert all(0 < len(one.text) <= size for one in found)
    assert "".join("".join(one.text.split()) for one in found) == "".join(text.split())


def test_words_of_scripts_without_spaces_are_pairs() -> None:
    assert words_of("The RIVER-bank 7") == ["the", "river", "bank", "7"]
    assert words_of("東京都の天気") == ["東京", "京都", "都の", "の天", "天気"]


def test_the_rare_words_of_a_question_count_more() -> None:
    texts = ["the bridge is old", "the aqueduct is old", "the road is old", "nothing of it"]
    scores = word_scores("the old aqueduct", texts)
    assert max(range(4), key=scores.__getitem__) == 1
    assert scores[3] == 0
    assert word_scores("the old aqueduct", []) == ()
    assert word_scores("", texts) == (0, 0, 0, 0)


def test_a_long_text_with_the_same_words_counts_less() -> None:
    short, long = word_scores("river", ["river and bank", "river and bank " + "word " * 200])
    assert short > long > 0


def test_vectors_are_compared_by_their_direction() -> None:
    scores = vector_scores((1.0, 0.0), [(2.0, 0.0), (1.0, 1.0), (0.0, 3.0), (0.0, 0.0), (-1.0, 0.0)])
    assert [round(score, 6) for score in scores] == [1, round(math.sqrt(0.5), 6), 0, 0, -1]


def passage(source: int, order: int, length: int = 10) -> Passage:
    return Passage(source=source, order=order, text="x" * length)


def test_every_source_has_its_best_passage_before_any_has_two() -> None:
    passages = [passage(0, 0), passage(0, 1), passage(0, 2), passage(1, 0), passage(1, 1)]
    chosen = best(passages, [5, 4, 3, 1, 0.5], room=30, each=2)
    assert [(one.source, one.order) for one in chosen] == [(0, 0), (0, 1), (1, 0)]


def test_no_more_than_the_room_is_used() -> None:
    passages = [passage(0, 0, 50), passage(1, 0, 60), passage(2, 0, 30)]
    assert [one.source for one in best(passages, [3, 2, 1], room=80, each=4)] == [0, 2]
    assert best(passages, [3, 2, 1], room=0, each=4) == ()
    assert best([], [], room=80, each=4) == ()


def test_equal_scores_keep_the_order_of_the_text() -> None:
    passages = [passage(0, order) for order in range(6)]
    assert [one.order for one in best(passages, [0] * 6, room=1000, each=3)] == [0, 1, 2]
