"""The small pure parts: guesses from the text, text from octets, threads from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.types import TokenLogprob
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.open_context import share_of
from mullama.engines.llamacpp.sampling.prompt_lookup import LONGEST_GUESS, PromptLookup
from mullama.engines.llamacpp.text_stream import Detokenizer


def test_a_guess_is_what_followed_the_same_tokens_last_time() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2]) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6]) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3]) == [4, 5, 6, 1, 2, 3]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3], 2) == [4, 5]


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 8))
def test_guesses_do_not_depend_on_how_the_text_grew(tokens: list[int], step: int) -> None:
    grown, whole = PromptLookup(), PromptLookup()
    for end in range(0, len(tokens), step):
        grown.guess(tokens[:end])
    guess = grown.guess(tokens)
    assert guess == whole.guess(tokens)
    assert len(guess) <= LONGEST_GUESS
    if guess:
        run = tokens[-3:] + guess
        assert any(tokens[i : i + len(run)] == run for i in range(len(tokens)))


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


@pytest.mark.parametrize(
    ("cores", "of", "parts"),
    [(2, 1, [2]), (2, 2, [1, 1]), (2, 3, [1, 1, 1]), (8, 3, [3, 3, 2]), (8, 2, [4, 4]), (1, 2, [1, 1])],
)
def test_cores_are_parted_without_a_rest(cores: int, of: int, parts: list[int]) -> None:
    assert [share_of(cores, rank, of) for rank in range(of)] == parts


def test_a_full_disk_costs_only_the_next_start(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    files = PrefixFiles(str(blocked / "below"), "key")
    files.save([1, 2], b"state")
    files.discard([1, 2])
    assert files.load([1, 2]) is None


def test_a_prefix_is_found_only_by_its_key_and_tokens(tmp_path: Path) -> None:
    files = PrefixFiles(str(tmp_path), "key")
    files.save([1, 2, 3], b"state")
    assert files.load([1, 2, 3]) == b"state"
    assert files.load([1, 2]) is None
    assert PrefixFiles(str(tmp_path), "other").load([1, 2, 3]) is None
    assert not list(tmp_path.glob("*.partial"))


def test_prefixes_unused_for_longest_make_room_for_new_ones(tmp_path: Path) -> None:
    files = PrefixFiles(str(tmp_path), "key")
    for number in range(3):
        files.save([number], bytes(1000))
        os.utime(files._path([number]), ns=(number, number))
    assert files.load([0]) is not None, "used just now"
    PrefixFiles(str(tmp_path), "key", most_bytes=2500).save([3], bytes(1000))
    assert [files.load([number]) is not None for number in range(4)] == [True, False, False, True]
