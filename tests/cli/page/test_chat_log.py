"""The texts of conversations on the page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mullama.cli.page.chat_log import LinePlace, broken


def test_long_lines_are_broken_at_spaces_and_long_words_anywhere() -> None:
    assert broken("short\ntext") == ("short\ntext", LinePlace(line=4, word=4))
    words, place = broken("word " * 1000)
    assert words.replace("\n", "") == "word " * 1000
    assert max(map(len, words.split("\n"))) <= 1005
    assert place == LinePlace(line=len(words.rpartition("\n")[2]), word=0)
    assert list(map(len, broken("a" * 1200)[0].split("\n"))) == [500, 500, 200]


@given(st.lists(st.text(alphabet="a \n", max_size=3000), max_size=4))
def test_pieces_are_broken_as_the_whole_text(pieces: list[str]) -> None:
    place, parts = LinePlace(), []
    for piece in pieces:
        part, place = broken(piece, place)
        parts.append(part)
    assert ("".join(parts), place) == broken("".join(pieces))
