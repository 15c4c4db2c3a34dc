"""The texts of windows become one transcript: tables of values, and the law that no word is lost or doubled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.transcription.joining import TranscriptJoiner, joined


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("one two three four", "three four five", "one two three four five"),
        # Each window heard the word at its edge in part.
        ("the quick brown fox ju", "ick brown fox jumps over", "the quick brown fox jumps over"),
        ("we will meet tomor", "meet tomorrow at noon", "we will meet tomorrow at noon"),
        # Case and punctuation at the edges differ.
        ("It rained all day.", "All day, and then it stopped.", "It rained all day, and then it stopped."),
        # One common word at the edges.
        ("go to the store", "store and buy milk", "go to the store and buy milk"),
        # A word that only looks common is far from the edge.
        ("the cat sat here", "now and then comes the", "the cat sat here now and then comes the"),
        # No common word: a part of the word at the cut is dropped.
        ("they were hap", "happy together", "they were happy together"),
        ("he said understanding", "standing is hard", "he said understanding is hard"),
        ("no words", "in common", "no words in common"),
        ("", "only the second", "only the second"),
        ("only the first", "", "only the first"),
        ("今天天气很好我们", "很好我们去公园", "今天天气很好我们去公园"),
        ("今天", "去公园", "今天去公园"),
        ("...", "and so", "... and so"),
    ],
)
def test_joined(before: str, after: str, expected: str) -> None:
    assert joined(before, after, 2.0) == expected


WORDS = st.lists(st.integers(100, 999), min_size=8, max_size=40, unique=True).map(
    lambda numbers: [f"w{number}x" for number in numbers]
)


@given(WORDS, st.data())
def test_no_word_is_lost_or_doubled(words: list[str], data: st.DataObject) -> None:
    common = data.draw(st.integers(2, 6))
    begin = data.draw(st.integers(1, len(words) - common - 1))
    before, after = words[: begin + common], words[begin:]
    if data.draw(st.booleans()):
        before = [*before, words[begin + common][:2]]  # the next word in part
    if data.draw(st.booleans()):
        after = [words[begin - 1][-2:], *after]
    assert joined(" ".join(before), " ".join(after), 2.0).split() == words


@given(WORDS, st.integers(3, 12))
def test_windows_of_a_sound_join_to_its_words(words: list[str], size: int) -> None:
    """Every window is cut in speech, and shares two words with the next one."""
    joiner, found, at = TranscriptJoiner(), "", 0
    while at < len(words):
        last = at + size >= len(words)
        text = " ".join(words[at : at + size])
        found += joiner.add(text, overlap=0.5 if at else 0.0, cut=0.0 if last else 0.5)
        at += size if last else size - 2
    assert (found + joiner.end()).split() == words


def test_windows_with_pauses_between_them_are_put_together() -> None:
    joiner = TranscriptJoiner()
    parts = [joiner.add(text) for text in (" Hello there. ", "", "How are you?", "你好", "。")]
    assert "".join([*parts, joiner.end()]) == "Hello there. How are you?你好。"


def test_speech_that_ends_at_a_cut_is_not_lost() -> None:
    joiner = TranscriptJoiner()
    assert joiner.add("one two three four", cut=0.3) == "one two"
    assert joiner.add("five") == " three four five"
    assert joiner.add("six seven", cut=2.0) == ""
    assert joiner.end() == " six seven"
