"""Decoding of tokens to text: complete characters, stop strings, logprobs."""

from __future__ import annotations

import time

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
