"""The first bytes of a file decide on its format, and its header on its size; damaged headers have no facts."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media.formats import KINDS, MediaHeader, format_of, header_of

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480) + b"\x08\x02\0\0\0"
JPEG = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x03x\xff\xc2\0\x11\x08" + struct.pack(">HH", 480, 640)
BMP = b"BM" + bytes(12) + struct.pack("<Iii", 40, 640, -480)
OLD_BMP = b"BM" + bytes(12) + struct.pack("<IHH", 12, 640, 480)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480)
WEBP = b"RIFF\0\0\0\0WEBP"
LOSSLESS = WEBP + b"VP8L\5\0\0\0\x2f" + struct.pack("<I", 639 | 479 << 14)
LOSSY = WEBP + b"VP8 \n\0\0\0\0\0\0\x9d\1\x2a" + struct.pack("<HH", 640, 480)


def u24(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


CANVAS = WEBP + b"VP8X\n\0\0\0\2\0\0\0" + u24(639, 479)
EXTENDED = CANVAS + b"ICCP\3\0\0\0abc\0" + LOSSY[12:]
ANIMATED = CANVAS + b"ANIM\6\0\0\0\0\0\0\0\0\0" + b"ANMF\x10\0\0\0" + u24(10, 0, 619, 479, 100) + b"\0"


def ogg(*bodies: bytes, position: int = -1, serial: int = 7, flags: int = 0) -> bytes:
    """A page of an OGG stream whose packets are the bodies."""
    sizes = bytes(map(len, bodies))
    return struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, serial, 0, 0, len(sizes)) + sizes + b"".join(bodies)


VORBIS_HEAD = ogg(b"\1vorbis" + struct.pack("<IBI", 0, 2, 44100) + bytes(14), position=0, flags=2)
OPUS_HEAD = ogg(b"OpusHead\1\2" + struct.pack("<HI", 312, 16000) + bytes(3), position=0, flags=2)
OTHER_HEAD = ogg(b"\x80theora", position=0, serial=8, flags=2)
VORBIS = VORBIS_HEAD + ogg(b"x", position=44100) + ogg(b"x" * 9, position=3 * 44100) + ogg(b"y")
OPUS = OTHER_HEAD + OPUS_HEAD + ogg(b"x", position=48312) + ogg(b"video", position=10**9, serial=8)
SOUND = bytes(16000)
FORM = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
WAV = b"RIFF\0\0\0\0WAVE" + b"fmt " + struct.pack("<I", 16) + FORM + b"data" + struct.pack("<I", 16000) + SOUND
ENDLESS = WAV.replace(b"data" + struct.pack("<I", 16000), b"LIST\x01\0\0\0x\0data\xff\xff\xff\xff")
FLAC = b"fLaC\0\0\0\x22" + bytes(10) + struct.pack(">Q", 16000 << 44 | 48000) + bytes(16)


@pytest.mark.parametrize("data", [PNG, JPEG, BMP, OLD_BMP, GIF, EXTENDED, LOSSLESS, LOSSY, ANIMATED])
def test_the_header_of_an_image_states_its_pixels(data: bytes) -> None:
    found = header_of(data)
    assert found is not None
    assert (found.width, found.height) == (640, 480)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (WAV, 1.0),
        (ENDLESS, 1.0),
        (FLAC, 3.0),
        (b"ID3\4", 0.0),
        (b"\xff\xfb\x90", 0.0),
        (VORBIS, 3.0),
        (OPUS, 1.0),
        (b"ID3\4\0\0\0\0\0\0" + OPUS, 1.0),
        (OTHER_HEAD + ogg(b"x", serial=8), 0.0),
        (OPUS_HEAD, 0.0),
    ],
)
def test_the_header_of_a_sound_states_its_length_where_the_format_has_it(data: bytes, seconds: float) -> None:
    found = header_of(data)
    assert found is not None
    assert (KINDS[found.format], found.seconds) == ("audio", seconds)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\xff", b"\xff\xff", b"%PDF-1.7", b"RIFF\0\0\0\0AVI ", b"<svg/>", zlib.compress(b"x")]
)
def test_other_files_have_no_format(data: bytes) -> None:
    assert (format_of(data), header_of(data)) == (None, None)


@pytest.mark.parametrize(
    "data", [PNG, JPEG, BMP, GIF, EXTENDED, ANIMATED, LOSSLESS, LOSSY, WAV[:44], FLAC, VORBIS, OPUS]
)
def test_a_cut_header_has_no_facts_and_raises_nothing(data: bytes) -> None:
    for end in range(len(data) - 1):
        found = header_of(data[:end])
        assert found is None or isinstance(found, MediaHeader)


@given(
    st.sampled_from([PNG, JPEG, BMP, GIF, EXTENDED, ANIMATED, LOSSLESS, LOSSY, WAV[:60], FLAC, VORBIS, OPUS]), st.data()
)
def test_a_damaged_header_raises_nothing(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    header_of(data[:at] + draw.draw(st.binary(max_size=8)) + data[at:])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\2" * 20_000 + JPEG[2:],
        b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 20_000 + WAV[12:],
        WAV.replace(b"fmt " + struct.pack("<I", 16), b"fmt " + struct.pack("<I", 4)),
        CANVAS,
        CANVAS + b"junk\0\0\0\0" * 20_000 + LOSSY[12:],
        CANVAS + LOSSY[12:-2] + b"\xe1\1",  # 481 rows in a canvas of 480
        CANVAS + b"ANMF\x10\0\0\0" + u24(10, 0, 620, 479, 100) + b"\0",
        LOSSY.replace(b"\x9d", b"\x9e"),
    ],
)
def test_parts_beyond_all_reason_make_a_header_damaged(data: bytes) -> None:
    assert format_of(data)
    assert header_of(data) is None


def test_fill_bytes_before_a_marker_are_skipped_at_once() -> None:
    found = header_of(b"\xff\xd8" + b"\xff" * 2**20 + JPEG[2:])
    assert found is not None
    assert (found.width, found.height) == (640, 480)
