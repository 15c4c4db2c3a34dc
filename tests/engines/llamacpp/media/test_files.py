"""Files of media are refused by their bytes, before native code reads them."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media import MediaLimits, Medium
from mullama.engines.llamacpp.media.files import checked
from mullama.errors import Invalid, MullamaError, TooLarge, Unsupported
from tests.engines.llamacpp.media.projectors import png, wav

LIMITS = MediaLimits(pixels=10_000, seconds=10.0)


def png_of(width: int, height: int, raw: bytes, *, bits: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG with these inflated bytes as its pixels, whatever its header says."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    packed = zlib.compress(raw)
    half = len(packed) // 2
    parts = chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + parts + chunk(b"IEND", b"")


def mp3(seconds: float) -> bytes:
    """Frames of MPEG 1 layer III with 128 kbit/s at 44.1 kHz, which hold no sound."""
    frame = bytes((0xFF, 0xFB, 0x90, 0x00)) + bytes(413)  # 417 bytes
    return b"ID3\x04\x00\x00\x00\x00\x00\x02xx" + frame * round(seconds * 44100 / 1152)


def flac(samples: int, rate: int = 16000) -> bytes:
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", rate << 44 | 15 << 36 | samples) + bytes(16)
    return b"fLaC\x80" + (34).to_bytes(3, "big") + info


@pytest.mark.parametrize(
    ("kind", "data", "sizes"),
    [
        ("image", png(40, 30), (40, 30, 0)),
        ("image", png_of(3, 2, b"\x00\x00" * 2, bits=1, colour=0), (3, 2, 0)),
        ("image", png_of(9, 9, b"\x00" * 300, interlace=1), (9, 9, 0)),
        ("audio", wav(0.5), (0, 0, 0.5)),
        ("audio", wav(0.5, rate=8000), (0, 0, 0.5)),
        ("audio", wav(0.5, rate=96000), (0, 0, 0.5)),
        ("audio", flac(16000), (0, 0, 1.0)),
    ],
)
def test_a_file_states_its_sizes(kind: str, data: bytes, sizes: tuple[int, int, float]) -> None:
    found = checked(Medium.of(kind, data), LIMITS, 1)  # type: ignore[arg-type]
    assert (found.width, found.height, found.seconds) == sizes


@pytest.mark.parametrize("seconds", [0.5, 2.0, 9.9])
def test_the_duration_of_an_mpeg_stream_is_that_of_its_frames(seconds: float) -> None:
    assert checked(Medium.of("audio", mp3(seconds)), LIMITS, 1).seconds == pytest.approx(seconds, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "data", "error", "message"),
    [
        ("image", png(200, 100), TooLarge, "medium 3 of the request has 200 x 100 pixels"),
        ("image", png(201, 1), Invalid, "medium 3 of the request has 201 x 1 pixels: one side"),
        ("image", png_of(2, 2, bytes(2_000_000)), Invalid, "medium 3 of the request is a damaged image"),
        ("image", png(40, 30)[:60], Invalid, "medium 3 of the request is a damaged image"),
        ("image", png_of(2, 2, b""), Invalid, "medium 3 of the request is a damaged image"),
        ("image", png(0, 5), Invalid, "medium 3 of the request has 0 x 5 pixels"),
        ("image", b"", Invalid, "medium 3 of the request is not an image"),
        ("image", wav(1.0), Invalid, "medium 3 of the request is not an image"),
        ("audio", png(4, 4), Invalid, "medium 3 of the request is not a sound"),
        ("image", b"RIFF\x24\x00\x00\x00WEBPVP8X" + bytes(14), Unsupported, "medium 3 of the request is WebP"),
        ("audio", b"OggS" + bytes(60), Unsupported, "medium 3 of the request is OGG"),
        ("audio", wav(11.0), TooLarge, "medium 3 of the request has 11 s"),
        ("audio", mp3(12.0), TooLarge, "medium 3 of the request has"),
        ("audio", flac(16000 * 11), TooLarge, "medium 3 of the request has 11 s"),
        ("audio", flac(0), Invalid, "medium 3 of the request has no samples"),
        ("audio", wav(0.0), Invalid, "medium 3 of the request has no samples"),
        ("audio", b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(500), Invalid, "medium 3 of the request has no samples"),
    ],
)
def test_a_file_that_native_code_must_not_read_is_refused(
    kind: str, data: bytes, error: type[MullamaError], message: str
) -> None:
    with pytest.raises(error) as raised:
        checked(Medium.of(kind, data), LIMITS, 3)  # type: ignore[arg-type]
    assert raised.value.message.startswith(message)
    assert raised.value.hint


@given(
    kind=st.sampled_from(("image", "audio")),
    start=st.sampled_from(
        (b"", b"\x89PNG\r\n\x1a\n", png(6, 6), wav(0.1), mp3(0.1), flac(100), b"\xff\xd8\xff", b"BM")
    ),
    cut=st.integers(0, 200),
    rest=st.binary(max_size=300),
)
def test_damaged_files_are_read_or_refused_by_an_error_of_the_request(
    kind: str, start: bytes, cut: int, rest: bytes
) -> None:
    with suppress(Invalid, TooLarge):
        checked(Medium.of(kind, start[:cut] + rest), LIMITS, 1)  # type: ignore[arg-type]
