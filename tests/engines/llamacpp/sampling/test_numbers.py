"""The digits of numbers in constrained JSON."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mullama.engines.llamacpp.sampling.numbers import NumberGuard, without_digits


def full(text: str) -> bool:
    guard = NumberGuard()
    guard.feed(text.encode())
    return guard.full


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("7" * 20, False),
        ("7" * 21, True),
        ("-" + "7" * 21, True),
        ("[" + "7" * 21, True),
        ("7" * 21 + ",", False),
        ("7" * 21 + ".", False),
        ("0." + "3" * 23, False),
        ("0." + "3" * 24, True),
        ("1e12", False),
        ("1e123", True),
        ("1E-123", True),
        ("1.5e+12", False),
        ('{"a": "' + "7" * 40, False),
        ('{"a": "\\"' + "7" * 40, False),
        ('{"a": "\\\\", "b": ' + "7" * 21, True),
        ('{"' + "7" * 30 + '": 1', False),
        ("true, false, null, " + "7" * 21, True),
    ],
)
def test_a_part_of_a_number_is_full_by_its_digits(text: str, expected: bool) -> None:
    assert full(text) is expected


@pytest.mark.parametrize("mark", ["<escape>", '<|"|>'])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{x:" + "7" * 21, True),
        ("{x:" + "7" * 20, False),
        ("<|tool_call>call:add{x:" + "7" * 21, True),
        ("{a:Q" + "7" * 40, False),
        ('{a:Qsay "hi"\\ ' + "7" * 40, False),
        ("{a:Q" + "7" * 40 + "Q,x:0." + "3" * 24, True),
        ("{a:QbQ,x:1e12", False),
    ],
)
def test_a_text_between_marks_is_no_number(mark: str, text: str, expected: bool) -> None:
    guard = NumberGuard(mark)
    for byte in text.replace("Q", mark).encode():
        guard.feed(bytes([byte]))
    assert guard.full is expected


@given(st.text(), st.lists(st.integers(0, 30)))
def test_the_state_does_not_depend_on_the_cuts_between_tokens(text: str, cuts: list[int]) -> None:
    whole, parts = NumberGuard(), NumberGuard()
    data = json.dumps([text, 12.5]).encode()
    whole.feed(data)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        parts.feed(data[start:end])
    assert vars(whole) == vars(parts)


@example(1.2345678901234567e-6)
@example(1.2345678901234567e20)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_no_number_of_a_language_with_doubles_is_cut(value: float) -> None:
    """A digit that follows is never forbidden inside the text that JSON writers write."""
    texts = [json.dumps(value)]
    if 1e-6 <= abs(value) < 1e21:  # as JavaScript writes it
        texts.append(format(Decimal(repr(value)), "f"))
    for text in texts:
        guard = NumberGuard()
        for byte in text.encode():
            assert not (guard.full and chr(byte).isdigit()), text
            guard.feed(bytes([byte]))


def test_a_mask_loses_its_digits_unless_nothing_else_is_allowed() -> None:
    assert without_digits(b"\x0f\x00", 0b0011) == b"\x0c\x00"
    assert without_digits(b"\x03\x00", 0b0011) == b"\x03\x00"
