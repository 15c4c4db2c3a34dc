"""Messages as values: how the parts of one become its text."""

from __future__ import annotations

import pytest

from mullama.chat.types import MediaPart, Message, TextPart


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ((), ""),
        (("one",), "one"),
        (("one", "two"), "one\ntwo"),
        (("Error: ", "no such file"), "Error: no such file"),
        (("one\n", "two"), "one\ntwo"),
        (("one", "\n\n", "two"), "one\n\ntwo"),
        (("", "one", "", "two"), "one\ntwo"),
    ],
)
def test_text_parts_that_do_not_meet_at_white_space_stand_on_lines_of_their_own(
    texts: tuple[str, ...], joined: str
) -> None:
    """Agents send a reminder and a question as two parts; run together they would be one word."""
    assert Message(role="user", content=tuple(TextPart(text=text) for text in texts)).text == joined


def test_an_image_between_two_texts_leaves_them_apart() -> None:
    parts = (TextPart(text="before"), MediaPart(url="https://example.org/a.png"), TextPart(text="after"))

    assert Message(role="user", content=parts).text == "before\nafter"
