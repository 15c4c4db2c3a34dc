"""A FLAC file ends early if no frame at its end leads to the end of its stream."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media.flac import flac_missing
from tests.chat.media.test_formats import FLAC


def written(seconds: float, *, rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> bytes:
    soundfile = pytest.importorskip("soundfile")
    sound = np.random.default_rng(4).normal(0, 0.1, (int(seconds * rate), channels))
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="FLAC", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
@pytest.mark.parametrize(("channels", "subtype"), [(1, "PCM_16"), (2, "PCM_24"), (8, "PCM_16"), (1, "PCM_S8")])
def test_the_frames_of_a_file_lead_to_its_end(rate: int, channels: int, subtype: str) -> None:
    whole = written(3.21, rate=rate, channels=channels, subtype=subtype)
    assert flac_missing(whole) == 0
    assert flac_missing(b"ID3" + whole + bytes(128), 3) == 0
    for share in (0.9, 0.6, 0.3):
        cut = whole[: int(len(whole) * share)]
        assert flac_missing(cut) == pytest.approx(3.21 * (1 - share), abs=5000 / rate)


def test_long_sounds_have_numbers_of_several_bytes() -> None:
    soundfile, file = pytest.importorskip("soundfile"), io.BytesIO()
    soundfile.write(file, np.zeros(16_000 * 700, np.int16), 16_000, format="FLAC")
    whole = file.getvalue()
    assert flac_missing(whole) == 0
    assert flac_missing(whole[: len(whole) // 2]) > 300


@pytest.mark.parametrize("data", [b"", b"fLaC", FLAC, FLAC + b"\xff\xf8" * 1000, FLAC + b"\xff"])
def test_a_file_without_frames_states_no_end(data: bytes) -> None:
    assert flac_missing(data) == 0


def test_a_file_of_heads_alone_takes_a_bounded_time() -> None:
    assert flac_missing(FLAC + b"\xff\xf8\x18\x08\x00\xc2" * 170_000) >= 0


@given(st.binary(max_size=100), st.integers(0, 2**36 - 1))
def test_damaged_frames_raise_nothing(rest: bytes, samples: int) -> None:
    stated = FLAC[:18] + struct.pack(">Q", 16000 << 44 | samples) + FLAC[26:]
    assert flac_missing(stated + b"\xff\xf8" + rest) >= 0
