"""Stop strings: what is emitted does not depend on how the text was cut, and the first to end wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.stops import StopMatcher


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    said = ""
    for piece in pieces:
        text, hit = matcher.feed(piece)
        said += text
        if hit is not None:
            return said, hit
    return said + matcher.flush(), None


def expected(stops: list[str], text: str) -> tuple[str, str | None]:
    """The definition: the match that ends first; of those that end together, the longest."""
    for end in range(1, len(text) + 1):
        hits = [s for s in stops if s and text[:end].endswith(s)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize(
    ("stops", "pieces", "said", "hit"),
    [
        ([], ["a", "b"], "ab", None),
        ([""], ["ab"], "ab", None),
        (["</s>"], ["one <", "/s", "> two"], "one ", "</s>"),
        (["</s>"], ["one <", "/sx"], "one </sx", None),
        (["ab", "abc"], ["xabc"], "x", "ab"),
        (["bc", "abc"], ["xabc"], "x", "abc"),
        (["aab"], ["aaaab"], "aa", "aab"),
        (["\n\n"], ["a\n", "b\n", "\n"], "a\nb", "\n\n"),
        (["né"], ["ab", "n", "é", "x"], "ab", "né"),
    ],
)
def test_text_ends_before_the_first_stop_string(
    stops: list[str], pieces: list[str], said: str, hit: str | None
) -> None:
    assert run(stops, pieces) == (said, hit)


@given(
    st.lists(st.text("abc", max_size=4), max_size=4),
    st.lists(st.text("abcd", max_size=5), max_size=12),
)
def test_the_result_is_that_of_the_definition_however_the_text_is_cut(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == expected(stops, "".join(pieces))


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.text("abc", max_size=30))
def test_what_is_emitted_is_never_part_of_a_later_stop(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    emitted = ""
    for char in text:
        said, hit = matcher.feed(char)
        emitted += said
        if hit is not None:
            break
    whole, _ = expected(stops, text)
    assert whole.startswith(emitted)


def test_the_rest_after_a_stop_is_told() -> None:
    matcher = StopMatcher(["stop"])
    assert matcher.feed("a st") == ("a ", None)
    assert matcher.feed("op and more") == ("", "stop")
    assert matcher.rest == " and more"


def test_a_long_text_of_near_misses_is_searched_in_linear_time() -> None:
    """Every character is held back and given up again: quadratic searching would take minutes."""
    matcher = StopMatcher(["a" * 256 + "b"])
    said = sum(len(matcher.feed("a")[0]) for _ in range(200_000))
    assert said == 200_000 - 256
