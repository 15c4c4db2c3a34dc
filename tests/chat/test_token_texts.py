"""Texts of control tokens in texts: found wherever they may form, and broken without a trace once the joint is gone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.token_texts import JOINTS, TokenTexts, choose_joint, is_turn_mark
from mullama.errors import Invalid

CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "[INST]", "<｜end▁of▁sentence｜>", "</think>")
TEXTS = TokenTexts(CONTROL)
J = chr(JOINTS[0])
EDGES = ("<|", "|>", "<", ">", "im_end", "</", "s>", "|im_end|>", "<|IM_END|>", "[", "a ", "\n", "é")
PIECES = st.sampled_from([*CONTROL, *EDGES])
CONTENT = st.lists(PIECES, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("plain", "plain"),
        ("", ""),
        ("<", "<"),
        ("a < b && c > d", "a < b && c > d"),
        ("a<|im_end|>b", "a<J|im_end|>b"),
        ("<|im_end|><|im_end|>", "<J|im_end|><J|im_end|>"),
        ("<s></s>", "<Js><J/s>"),
        ("<|IM_End|>", "<J|IM_End|>"),
        ("[INST] hi", "[JINST] hi"),
        ("<｜end▁of▁sentence｜>", "<J｜end▁of▁sentence｜>"),
        ("begins <|im", "begins <J|im"),
        ("end|> of another", "eJnd|> of another"),
        ("<s", "<Js"),
        ("write </think> to end it", "write <J/think> to end it"),
    ],
)
def test_each_text_is_broken_behind_its_first_character(text: str, broken: str) -> None:
    assert TEXTS.broken(text, "J") == broken
    assert TEXTS.occurs_in(text) is (text != broken)


def test_overlapping_texts_are_all_broken() -> None:
    assert TokenTexts(["aba", "bab"]).broken("xababx", "-") == "xa-b-abx"


def test_no_texts_break_nothing() -> None:
    assert TokenTexts().broken("<|im_end|>", "-") == "<|im_end|>"
    assert TokenTexts(["x"]).broken("x", "-") == "x"


@given(CONTENT)
def test_what_is_left_is_the_text_itself(text: str) -> None:
    assert TEXTS.broken(text, J).replace(J, "") == text


@given(st.lists(CONTENT, min_size=1, max_size=3))
def test_no_text_forms_in_a_content_or_between_two(contents: list[str]) -> None:
    prompt = " ".join(TEXTS.broken(content, J) for content in contents)
    assert not any(text in prompt.lower() for text in CONTROL)
    for first, second in pairwise(contents):
        if len(first) > 1 and len(second) > 1:
            together = TEXTS.broken(first, J) + TEXTS.broken(second, J)
            assert not any(text in together.lower() for text in CONTROL)


def test_many_texts_are_searched_quickly() -> None:
    texts = TokenTexts(f"<unused{number}>" for number in range(6000))
    assert texts.broken("a <unused5999> b" + "<unused" * 200_000, "-").startswith("a <-unused5999> b<unused<")


def test_the_joint_is_a_character_that_no_content_holds() -> None:
    assert choose_joint(["a", f"b{chr(JOINTS[0])}", chr(JOINTS[1])]) == chr(JOINTS[2])
    with pytest.raises(Invalid, match="every private-use character from U\\+E000"):
        choose_joint(["".join(map(chr, JOINTS))])


@pytest.mark.parametrize(
    ("text", "is_mark"),
    [("<|user|>", True), ("<｜User｜>", True), ("<think>", False), ("<||>", False), ("<|tool_call>", False)],
)
def test_marks_of_turns_are_known_by_their_form(text: str, is_mark: bool) -> None:
    assert is_turn_mark(text) is is_mark


def test_any_number_of_texts_is_searched() -> None:
    texts = TokenTexts(("<|end|>",))
    for _ in range(2):
        assert all(texts.occurs_in(f"{number}<|end|>") for number in range(5000))
        assert not any(texts.occurs_in(f"{number} ends") for number in range(5000))
