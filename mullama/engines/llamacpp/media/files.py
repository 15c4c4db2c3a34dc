"""The checks of the files of media before native code decodes them. Pure.

libmtmd decodes images by stb_image and sounds by miniaudio. Both allocate what a header announces, and an exception
of C++ would end the process, so nothing that this module refuses reaches them. A file that they refuse is an error of
its request. A file that crashes them ends the worker, and its request is not repeated (`runtime.quarantine`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.formats import Format, MediaHeader, header_of
from mullama.chat.media.limits import check_file
from mullama.errors import Invalid, TooLarge, Unsupported
from mullama.struct import replace

LONGEST_SIDE_RATIO = 200
"""Of the sides of an image. Encoders cut images into tiles along the longer side, and assume a shorter one of some
pixels; Qwen-VL's own code has the same bound."""
_NOT_READ: dict[Format, tuple[str, str]] = {"webp": ("WebP", "PNG or JPEG"), "ogg": ("OGG", "WAV, MP3 or FLAC")}
_SAMPLES = {  # per frame, by (version, layer); version 3 is MPEG 1, layer 1 is III
    (3, 1): 1152, (3, 2): 1152, (3, 3): 384, (2, 1): 576, (2, 2): 1152, (2, 3): 384,
    (0, 1): 576, (0, 2): 1152, (0, 3): 384,
}  # fmt: skip
# The first bytes of a frame: the sync word, a version and a layer that exist, a bitrate and a rate that are stated.
_FRAME = re.compile(
    b"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][" + b"".join(b"\\x%x0-\\x%xb" % (n, n) for n in range(1, 15)) + b"]"
)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BITRATES = {  # kbit/s, by (MPEG 1, layer)
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # fmt: skip


def checked(medium: Medium, limits: MediaLimits, place: int) -> MediaHeader:
    """Return the facts of a file that native code may decode. place: its number in the request, from 1.

    Raises `Invalid` for a file that is damaged or of no known format, `TooLarge` beyond the limits, and `Unsupported`
    for a format that llama.cpp does not decode.
    """
    name, data = name_of(place), medium.data
    check_file(medium.kind, data, name, limits)
    header = header_of(data)
    assert header is not None
    if header.format in _NOT_READ:
        label, others = _NOT_READ[header.format]
        raise Unsupported(f"{name} is {label}, which llama.cpp does not decode", hint=f"send {others}")
    if medium.kind == "image":
        _check_sides(name, header)
        if header.format == "png":
            _check_png(name, data)
        return header
    if header.format == "mp3":
        header = replace(header, seconds=_mp3_seconds(data, limits.seconds))
    if header.seconds > limits.seconds:
        raise TooLarge(
            f"{name} has {header.seconds:.0f} s, and {limits.seconds:g} s is the most",
            hint="send a shorter one, or raise server.limits.media.seconds in the manifest",
        )
    if header.seconds <= 0:
        # A stream of FLAC may leave its duration out, and miniaudio would read it without a bound.
        raise Invalid(f"{name} has no samples, or does not state how many", hint=f"write the {header.format} again")
    return header


def name_of(place: int) -> str:
    """Return what errors call the medium at this place of a request, from 1."""
    return f"medium {place} of the request"


def damaged(place: int, kind: str) -> Invalid:
    """Return the error of a file that libmtmd could not decode."""
    noun = "image" if kind == "image" else "sound"
    return Invalid(f"{name_of(place)} is a damaged {noun}", hint="send the complete file")


def _check_sides(name: str, header: MediaHeader) -> None:
    if max(header.width, header.height) > LONGEST_SIDE_RATIO * min(header.width, header.height):
        raise Invalid(
            f"{name} has {header.width} x {header.height} pixels: one side has more than {LONGEST_SIDE_RATIO} times "
            "as many as the other",
            hint="cut the image into parts",
        )


def _check_png(name: str, data: bytes) -> None:
    """Raise `Invalid` unless the compressed pixels are as many as the header announces.

    stb_image inflates all that a file has, and a thousandth of the memory that it takes is enough to ask for it.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    inflate, size = zlib.decompressobj(), 0
    try:
        bits = data[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(data[25], 4)
        # An interlaced image (Adam7) has up to seven filter bytes for each eight rows, and rounds each row up.
        most = (width * bits // 8 + 9) * height * (2 if data[28] else 1) + 64
        for part in _png_pixels(data):
            while part:
                size += len(inflate.decompress(part, 1 << 20))
                part = inflate.unconsumed_tail
                if size > most:
                    raise Invalid(f"{name} is a damaged image", hint="it holds more pixels than it announces")
    except (zlib.error, IndexError) as error:
        raise Invalid(f"{name} is a damaged image", hint=f"its pixels cannot be read: {error}") from error
    if not size:
        raise Invalid(f"{name} is a damaged image", hint="it has no pixels")


def _png_pixels(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            yield data[at + 8 : at + 8 + size]
        at += 12 + size


def _mp3_seconds(data: bytes, most: float) -> float:
    """Return the duration of an MPEG stream by the headers of its frames, or some number above `most`.

    Nothing else states it. A decoder looks for the next frame after bytes that are none, and so does this.
    """
    at, seconds = 0, 0.0
    if data[:3] == b"ID3" and len(data) > 10:
        at = 10 + (data[6] & 127) * 2**21 + (data[7] & 127) * 2**14 + (data[8] & 127) * 2**7 + (data[9] & 127)
    while seconds <= most and (found := _FRAME.search(data, at)):
        size, duration = _mp3_frame(found[0])
        at = found.start() + size
        seconds += duration
    return seconds


def _mp3_frame(header: bytes) -> tuple[int, float]:
    """Return the bytes and seconds of a frame (ISO 11172-3, 2.4.1.3)."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    samples, hertz = _SAMPLES[version, layer], _RATES[version][rate]
    bits = _BITRATES[version == 3, layer][bitrate - 1] * 1000
    unit = 4 if layer == 3 else 1
    return (samples * bits // 8 // hertz // unit + padding) * unit, samples / hertz
