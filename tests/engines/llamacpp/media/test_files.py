"""Files of media are refused by their bytes, before native code reads them."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.mpeg import mpeg_seconds
from mullama.engines.llamacpp.media.files import checked, readable
from mullama.errors import Invalid, MullamaError, TooLarge
from tests.chat.media.test_flac import written
from tests.chat.media.test_formats import LOSSY, OLD_BMP, OPUS, VORBIS
from tests.chat.media.test_mpeg import tagged
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


def wav_of(
    rate: int, stated: int, size: int, *, tag: int = 1, channels: int = 1, block: int = 1, bits: int = 8
) -> bytes:
    """A WAV whose form is what the arguments say. stated: bytes of a second, which no decoder reads."""
    form = struct.pack("<HHIIHH", tag, channels, rate, stated, block, bits)
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + bytes(size)


def frames(header: bytes, size: int, count: int) -> bytes:
    return (header + bytes(size - len(header))) * count


ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x00"
WHOLE, SLOW, FAST = b"\xff\xfb\x90\x00", b"\xff\xe3\x18\xc0", b"\xff\xfb\x14\xc0"  # 44.1 kHz, 8 kHz, 48 kHz
FREE = b"\xff\xe3\x0b\xc0"  # of free format: the distance of two frames is their size
STATED = WHOLE + bytes(32) + b"Xing\0\0\0\1" + (2**31).to_bytes(4, "big") + bytes(417 - 48)


def jpeg(scans: int) -> bytes:
    """A progressive JPEG of 8 x 8 pixels, with a comment that looks like its end."""
    frame = b"\xff\xc2\0\x0b\x08\0\x08\0\x08\x01\x01\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xfe\0\x04\xff\xd9" + b"\xff\xda\0\x08\x01\x01\0\0\0\x10\0" * scans + b"\xff\xd9"


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
        ("audio", ID3 + flac(16000), (0, 0, 1.0)),
        ("audio", wav_of(8000, 1, 8000), (0, 0, 1.0)),
        ("audio", wav_of(8000, 1, 1000, tag=2, block=100, bits=4), (0, 0, (2 * 940 + 10) / 8000)),
        ("image", jpeg(12), (8, 8, 0)),
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
        ("image", LOSSY, TooLarge, "medium 3 of the request has 640 x 480 pixels"),
        ("audio", VORBIS.replace(b"D\xac", b"\x40\0"), TooLarge, "medium 3 of the request has 2067 s"),
        ("audio", wav(11.0), TooLarge, "medium 3 of the request has 11 s"),
        ("audio", mp3(12.0), TooLarge, "medium 3 of the request has"),
        ("audio", flac(16000 * 11), TooLarge, "medium 3 of the request has 11 s"),
        ("audio", flac(0), Invalid, "medium 3 of the request has no samples"),
        ("audio", wav(0.0), Invalid, "medium 3 of the request has no samples"),
        # The bytes of a second are not what the decoder reads: it would make 16,000 samples of each byte.
        ("audio", wav_of(1, 2**31, 1000), TooLarge, "medium 3 of the request has 1000 s"),
        # Blocks of ADPCM that are smaller than their heads have less than no samples.
        ("audio", wav_of(16000, 1, 1000, tag=2, channels=2, bits=4), Invalid, "medium 3 of the request is damaged"),
        ("audio", wav_of(16000, 1, 1000, channels=0), Invalid, "medium 3 of the request is damaged"),
        ("audio", ID3 + flac(16000 * 11) + mp3(1.0)[12:], TooLarge, "medium 3 of the request has 11 s"),
        ("audio", ID3 * 3 + b"OggS" + mp3(1.0)[12:], Invalid, "medium 3 of the request is damaged"),
        ("audio", ID3 * 20_000 + flac(1), Invalid, "medium 3 of the request is damaged"),
        ("audio", ID3 + frames(FREE, 13, 200) + mp3(1.0)[12:], TooLarge, "medium 3 of the request has"),
        ("audio", frames(SLOW, 72, 12) + frames(FAST, 96, 100), TooLarge, "medium 3 of the request has"),
        ("audio", STATED + mp3(1.0)[12:], TooLarge, "medium 3 of the request has"),
        ("audio", flac(16000) + frames(FREE, 13, 160_000), Invalid, "medium 3 of the request is a damaged sound"),
        ("image", jpeg(101), Invalid, "medium 3 of the request is a damaged image"),
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


def test_frames_that_a_decoder_finds_in_a_longer_one_are_counted() -> None:
    """A long frame has one successor of its kind and not the next, so decoders pass over it to the short ones in it."""
    long, short = bytes.fromhex("fffbe000"), frames(bytes.fromhex("fff31400"), 24, 43)
    decoy = (long + bytes(9) + short) * 2 + b"\0"
    assert len(decoy) == 2 * 1045 + 1
    data = decoy * 100
    assert mpeg_seconds(data, 1e6) >= 200 * 43 * 576 / 24000


def test_a_quiet_sound_is_no_stream_of_mpeg() -> None:
    quiet = b"\xff\xff\0\0" * 4_000_000
    form = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    tagged = b"RIFF\0\0\0\0WAVELIST\4\0\0\0INFOfmt \x10\0\0\0" + form
    tagged += b"data" + struct.pack("<I", len(quiet)) + quiet + b"junk\0\0\0\0"
    medium = Medium.of("audio", tagged)
    header = checked(medium, MediaLimits(), 1)
    assert header.seconds == 500
    plain = readable(tagged, header)
    assert plain[:4] + plain[12:16] + plain[36:40] == b"RIFFfmt data"
    assert plain[44:] == quiet


def gif(*, colours: bool = True) -> bytes:
    """A picture of two pixels, after a block of comments."""
    table = bytes(6) if colours else b""
    head = b"GIF89a" + struct.pack("<HHBBB", 2, 1, 0x80 * colours, 0, 0) + table
    return head + b"\x21\xfe\x02hi\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 2, 1, 0) + b"\x02\x02\x44\x0a\0" + b";"


def bmp(width: int = 3, height: int = 2) -> bytes:
    row = (width * 24 + 31) // 32 * 4
    size = row * abs(height)
    head = b"BM" + struct.pack("<IHHI", 54 + size, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, 0, 0, 0, 0) + bytes(size)


@pytest.mark.parametrize(
    ("kind", "data", "cut"),
    [
        ("image", jpeg(2), 2), ("image", jpeg(2), 14), ("image", gif(), 2), ("image", gif(), 8),
        ("image", gif(colours=False), 3), ("image", bmp(), 1), ("image", bmp(height=-2), 9),
        ("audio", wav_of(8000, 1, 4000), 1600), ("audio", wav_of(8000, 1, 4000, tag=7), 900),
        ("audio", wav_of(8000, 1, 1000, tag=2, block=100, bits=4), 501), ("audio", VORBIS, 1), ("audio", OPUS, 5),
        ("audio", OPUS, 20), ("audio", tagged("Xing"), 417 * 5), ("audio", ID3 + tagged("Info"), 417 * 20),
        ("audio", tagged("VBRI"), 417 * 9),
    ],
)  # fmt: skip
def test_a_file_that_ends_early_is_refused(kind: Any, data: bytes, cut: int) -> None:
    checked(Medium.of(kind, data), LIMITS, 1)
    with pytest.raises(Invalid, match="medium 1 of the request ends early: "):
        checked(Medium.of(kind, data[:-cut]), LIMITS, 1)


def test_a_flac_that_ends_early_is_refused_without_the_extra() -> None:
    whole = written(2.0)
    assert checked(Medium.of("audio", whole), LIMITS, 1).seconds == 2.0
    with pytest.raises(Invalid, match=r"medium 1 of the request ends early: its header states 1\.\d s more"):
        checked(Medium.of("audio", whole[: len(whole) // 2]), LIMITS, 1)


@pytest.mark.parametrize(
    ("kind", "whole"),
    [("image", gif()), ("image", bmp()), ("image", OLD_BMP + bytes(9)), ("image", jpeg(1)), ("image", png(4, 4)),
     ("audio", wav_of(8000, 1, 60))],
)  # fmt: skip
def test_a_file_that_is_cut_anywhere_is_an_error_of_the_request(kind: Any, whole: bytes) -> None:
    for end in range(len(whole)):
        with suppress(MullamaError):
            checked(Medium.of(kind, whole[:end]), MediaLimits(), 1)


def test_a_sound_of_a_pipe_states_no_length_and_a_rough_end_is_no_damage() -> None:
    sound = wav_of(8000, 1, 4000)
    assert checked(Medium.of("audio", sound[:-500]), LIMITS, 1).seconds == pytest.approx(0.4375)
    piped = sound.replace(b"data" + struct.pack("<I", 4000), b"data\xff\xff\xff\xff")
    assert checked(Medium.of("audio", piped), LIMITS, 1).seconds == 0.5


def test_a_file_of_headers_alone_takes_a_bounded_time() -> None:
    assert mpeg_seconds(bytes.fromhex("ffe30bc0") * 1_000_000, 10.0) > 10
    assert mpeg_seconds(bytes.fromhex("fffbe000") * 1_000_000, 200.0) > 200  # the frames overlap: 100 s


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
