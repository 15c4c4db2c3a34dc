"""Formats of samples, and the buffer of the input."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.dialects.openai.realtime.sounds import InputBuffer, SoundFormat
from mullama.errors import Invalid, TooLarge

MU, A = SoundFormat(name="audio/pcmu", rate=8000), SoundFormat(name="audio/pcma", rate=8000)


@pytest.mark.parametrize(
    ("form", "code", "sample"),
    [(MU, 0xFF, 0), (MU, 0x7F, 0), (MU, 0x80, 32124), (MU, 0x00, -32124), (MU, 0xEF, 132),
     (A, 0xD5, 8), (A, 0x55, -8), (A, 0xAA, 32256), (A, 0x2A, -32256), (A, 0xC5, 264)],
)  # fmt: skip
def test_companded_samples_are_those_of_the_standard(form: SoundFormat, code: int, sample: int) -> None:
    assert struct.unpack("<h", form.samples(bytes([code])))[0] == sample


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(Invalid, match="odd"):
        SoundFormat().samples(b"abc")


@given(st.lists(st.binary(min_size=0, max_size=40).map(lambda b: b[: len(b) // 2 * 2]), max_size=9))
def test_pieces_are_joined_and_taken_by_time(pieces: list[bytes]) -> None:
    buffer = InputBuffer(1000, 10_000)  # a sample is a millisecond
    for piece in pieces:
        buffer.add(piece)
    whole = b"".join(pieces)
    middle = buffer.end // 2
    assert buffer.take(0, middle) + buffer.take(middle, buffer.end) == whole
    assert len(buffer) == 0
    assert buffer.begin == buffer.end == len(whole) // 2


def test_a_full_buffer_keeps_what_it_has() -> None:
    buffer = InputBuffer(1000, 4)
    buffer.add(b"abcd")
    with pytest.raises(TooLarge, match="input audio buffer"):
        buffer.add(b"ef")
    assert buffer.take(0, 2) == b"abcd"
