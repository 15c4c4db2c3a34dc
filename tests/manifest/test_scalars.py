"""What unquoted words mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.manifest.scalars import read_plain

MEANINGS = [
    ("", None),
    ("~", None),
    ("null", None),
    ("true", True),
    ("false", False),
    ("0", 0),
    ("-7", -7),
    ("+7", 7),
    ("8192", 8192),
    ("0.3", 0.3),
    (".5", 0.5),
    ("1.", 1.0),
    ("1e3", 1000.0),
    ("-2.5E-3", -0.0025),
]

TEXT = (
    *("True", "TRUE", "yes", "no", "on", "off", "y", "n", "Null", "NULL"),
    *("010", "0777", "0o17", "0x1F", "0b1", "1_000", "1:30", "12:30:45", "2024-01-02", "1.10.2", "00.5"),
    *("-", "+", ".", "..", "1e", "e1", "-e3", "infinity", "nan", "NaN", "60/m", "8GiB", "10m"),
)


@pytest.mark.parametrize(("text", "value"), MEANINGS)
def test_core_words_have_their_value(text: str, value: object) -> None:
    found = read_plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", TEXT)
def test_what_tools_read_differently_is_text(text: str) -> None:
    assert read_plain(text) == text


@pytest.mark.parametrize("text", [".inf", "-.inf", ".NaN", ".Inf", "9" * 19, "-" + "9" * 5000, "1e400"])
def test_numbers_that_no_field_can_take_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|not allowed"):
        read_plain(text)


@given(st.text(max_size=80))
def test_any_word_has_a_meaning_or_is_refused(text: str) -> None:
    try:
        value = read_plain(text)
    except ValueError:
        return
    assert value is None or isinstance(value, (bool, int, float, str))
    assert not isinstance(value, str) or value == text
