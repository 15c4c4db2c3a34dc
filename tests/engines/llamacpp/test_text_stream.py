"""Decoding of tokens to text: complete characters, stop strings, logprobs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.types import TokenLogprob
from mullama.engines.llamacpp.text_stream import Detokenizer


@given(st.text(max_size=60), st.lists(st.integers(1, 4), min_size=1))
def test_text_is_the_same_however_its_octets_are_cut(text: str, cuts: list[int]) -> None:
    stream, said, data, index = Detokenizer(()), "", text.encode(), 0
    count = 0
    while data:
        piece, data = data[: cuts[index % len(cuts)]], data[cuts[index % len(cuts)] :]
        stream.add(piece)
        index += 1
        if part := stream.take():
            said += part.text
            count += part.count
            assert part.text
    if part := stream.finish():
        said += part.text
        count += part.count
    assert said == text
    assert count == index


def test_octets_that_are_no_text_become_replacement_characters() -> None:
    stream = Detokenizer(())
    stream.add(b"a\xff")
    stream.add(b"\xf0\x9f")
    said = stream.take()
    assert said is not None
    assert said.text == "a\ufffd"
    rest = stream.finish()
    assert rest is not None
    assert rest.text == "\ufffd"


def test_logprobs_wait_for_the_text_of_their_token() -> None:
    stream = Detokenizer(("stop",))
    entry = TokenLogprob(id=1, text="st", bytes=b"st", logprob=-1.0)
    stream.add(b"st", entry)
    assert stream.take() is None
    stream.add(b"art", entry)
    said = stream.take()
    assert said is not None
    assert (said.text, said.count, len(said.logprobs)) == ("start", 2, 2)


def test_after_a_stop_string_nothing_is_said() -> None:
    stream = Detokenizer(("stop",))
    assert not stream.add(b"a st")
    assert stream.add(b"op b")
    assert stream.stop == "stop"
    said = stream.finish()
    assert said is not None
    assert said.text == "a "
    assert said.count == 2


def shown(tokens: list[bytes], stops: tuple[str, ...] = ()) -> list[tuple[str, list[str]]]:
    """Return each part of the text with the texts of its tokens."""
    stream, parts = Detokenizer(stops), []
    for number, piece in enumerate(tokens):
        text = piece.decode("utf-8", "replace")
        alike = TokenLogprob(id=number, text=text, bytes=piece, logprob=-1.0)
        entry = TokenLogprob(id=number, text=text, bytes=piece, logprob=-1.0, top=(alike,))
        ended = stream.add(piece, entry)
        parts.append(stream.take())
        if ended:
            break
    found = [part for part in (*parts, stream.finish()) if part is not None]
    assert all(entry.top[0].text == entry.text for part in found for entry in part.logprobs)
    return [(part.text, [entry.text for entry in part.logprobs]) for part in found]


@pytest.mark.parametrize(
    ("tokens", "stops", "wanted"),
    [
        ([b"a\xc3", b"\xa9b", b"c"], (), [("aéb", ["a", "éb"]), ("c", ["c"])]),
        ([b"\xf0\x9f", b"\x99", b"\x82"], (), [("🙂", ["", "", "🙂"])]),
        ([b"a", b"\xf0\x9f"], (), [("a", ["a"]), ("\ufffd", ["\ufffd"])]),
        ([b"a\xf0\x9f", b"b"], (), [("a\ufffdb", ["a", "\ufffdb"])]),
        ([b"\xff", b"b"], (), [("\ufffd", ["\ufffd"]), ("b", ["b"])]),
        ([b"a st", b"op b", b"c"], ("stop",), [("a ", ["a "])]),
        ([b"a", b"st", b"op"], ("stop",), [("a", ["a"]), ("", [])]),
        ([b"a s", b"un"], ("stop",), [("a sun", ["a s", "un"])]),
        ([b"a s"], ("stop",), [("a s", ["a s"])]),
    ],
)
def test_the_texts_of_the_tokens_of_a_part_form_its_text(
    tokens: list[bytes], stops: tuple[str, ...], wanted: list[tuple[str, list[str]]]
) -> None:
    assert shown(tokens, stops) == wanted


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=12), st.sampled_from([(), ("a",), ("\ufffd\ufffd", "é")]))
def test_the_texts_of_tokens_form_the_text_for_any_octets(tokens: list[bytes], stops: tuple[str, ...]) -> None:
    parts = shown(tokens, stops)
    assert all("".join(texts) == text for text, texts in parts)
    whole = b"".join(tokens).decode("utf-8", "replace")
    first = min((whole.find(stop) for stop in stops if stop in whole), default=len(whole))
    assert "".join(text for text, _ in parts)[:first] == whole[:first]


def test_undecodable_octets_cost_linear_time() -> None:
    """Tokens that never form a character are held back once each, and come out as replacement characters."""

    def run(count: int) -> float:
        stream = Detokenizer(("never",))
        started = time.process_time()
        for _ in range(count):
            stream.add(b"\xf0\x9f")
            stream.take()
        stream.finish()
        return time.process_time() - started

    run(1000)
    short, long = (min(run(count) for _ in range(5)) for count in (8_000, 80_000))  # the least disturbed of some
    assert long < 40 * max(short, 0.001)
