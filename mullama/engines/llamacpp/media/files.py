"""The checks of the files of media before native code decodes them. Pure.

libmtmd decodes images by stb_image and sounds by miniaudio; `conversion` decodes what they do not read.
Both allocate what a header announces, and an exception of C++ would end the process, so nothing that this module
refuses reaches them. A file that they refuse is an error of its request. A file that crashes them ends the worker, and
its request is not repeated (`runtime.quarantine`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.flac import flac_missing
from mullama.chat.media.formats import (
    OGG_PAGE,
    ROUGH_END,
    Format,
    MediaHeader,
    after_tag,
    ogg_ends_early,
    wav_missing,
    wav_samples,
)
from mullama.chat.media.limits import check_file, check_seconds
from mullama.chat.media.mpeg import MPEG_HEAD, mpeg_seconds, mpeg_tag
from mullama.errors import Invalid
from mullama.struct import replace

LONGEST_SIDE_RATIO = 200
"""Of the sides of an image. Encoders cut images into tiles along the longer side, and assume a shorter one of some
pixels; Qwen-VL's own code has the same bound."""
_MOST_SCANS = 100
"""Of a JPEG image. Programs write about ten; each costs a pass over all pixels and may have a few bytes."""
_MOST_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
"""A marker with a segment or at the end; those inside compressed data (TEM, RST) are none of them."""
_FALLBACK_SECONDS = 10_800.0
"""Of the frames of MPEG in a file of another format: they are chance, and only a file that was made for it has more."""


def checked(medium: Medium, limits: MediaLimits, place: int) -> MediaHeader:
    """Return the facts of a file that native code may decode. place: its number in the request, from 1.

    Raises `Invalid` for a file that is damaged or of no known format, and `TooLarge` beyond the limits.
    """
    name, data = name_of(place), medium.data
    header = check_file(medium.kind, data, name, limits)
    if medium.kind == "image":
        _check_sides(name, header)
        if (check := _IMAGE_CHECKS.get(header.format)) is not None:
            check(name, data)
        return header
    if header.format == "ogg":
        if ogg_ends_early(data[-OGG_PAGE:]):
            raise _ends_early(name, "its last page is not complete")
        return header  # `conversion` counts the seconds as it decodes them
    if header.format == "mp3":
        header = replace(header, seconds=mpeg_seconds(data, limits.seconds, after_tag(data)))
    elif not _is_plain(header, data) and mpeg_seconds(data, most := max(limits.seconds, _FALLBACK_SECONDS)) > most:
        # miniaudio reads a file as MPEG if it fails to read it as its format.
        raise Invalid(f"{name} is a damaged sound", hint=f"it is no {header.format} file")
    check_seconds(header.seconds, name, limits)
    if (missing := _missing(header, data)) > ROUGH_END:
        raise _ends_early(name, f"its header states {missing:.1f} s more than it has")
    if header.seconds <= 0:
        # A stream of FLAC may leave its duration out, and miniaudio would read it without a bound.
        raise Invalid(f"{name} has no samples, or does not state how many", hint=f"write the {header.format} again")
    return header


def _missing(header: MediaHeader, data: bytes) -> float:
    """Return the seconds that the header of a sound states and that it does not have."""
    if header.format == "wav":
        return wav_missing(data)
    start = after_tag(data)
    if header.format == "flac":
        return flac_missing(data, start)
    if header.format == "mp3":
        tag = mpeg_tag(data[start : start + MPEG_HEAD])
        return 0.0 if tag is None else tag.missing(len(data) - start)
    return 0.0


def _is_plain(header: MediaHeader, data: bytes) -> bool:
    return header.format == "wav" and wav_samples(data)[0].plain


def readable(data: bytes, header: MediaHeader) -> bytes:
    """Return the bytes of a checked file for miniaudio and stb_image.

    A WAV of plain samples gets a head that miniaudio cannot fail to read: in a quiet sound, whose samples are 0 and -1,
    each may begin a frame of MPEG.
    """
    if header.format != "wav":
        return data
    form, at, size = wav_samples(data)
    if not form.plain:
        return data
    block = form.channels * form.bits // 8
    head = struct.pack("<HHIIHH", form.tag, form.channels, form.rate, form.rate * block, block, form.bits)
    riff = struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", len(head))
    return riff + head + struct.pack("<4sI", b"data", size) + memoryview(data)[at : at + size]


def name_of(place: int) -> str:
    """Return what errors call the medium at this place of a request, from 1."""
    return f"medium {place} of the request"


def damaged(place: int, kind: str) -> Invalid:
    """Return the error of a file that libmtmd could not decode."""
    noun = "image" if kind == "image" else "sound"
    return Invalid(f"{name_of(place)} is a damaged {noun}", hint="send the complete file")


def _ends_early(name: str, reason: str) -> Invalid:
    # The decoders fill up what is missing, with grey or silence, and the model would answer about that.
    return Invalid(f"{name} ends early: {reason}", hint="send the complete file")


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


def _check_jpeg(name: str, data: bytes) -> None:
    """Raise `Invalid` for more scans than images have. stb_image reads segments, and scans to the next marker."""
    at = scans = 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            raise _ends_early(name, "its last marker is missing")
        if found[1] == b"\xd9":
            return
        scans += found[1] == b"\xda"
        if scans > _MOST_SCANS:
            break
        at = found.end()
        if found[1] != b"\xd8":
            at += int.from_bytes(data[at : at + 2], "big")
    raise Invalid(f"{name} is a damaged image", hint="it has more scans or segments than programs write; save it again")


def _check_gif(name: str, data: bytes) -> None:
    """Raise `Invalid` for a file that ends in its first picture: blocks, each with parts of up to 255 bytes."""
    try:
        at = 13 + _colours(data[10])
        for _ in range(_MOST_SEGMENTS):
            kind = data[at]
            if kind == _GIF_PICTURE:
                at += 10 + _colours(data[at + 9]) + 1
            elif kind == _GIF_EXTENSION:
                at += 2
            else:
                return  # stb_image refuses it
            while size := data[at]:
                at += 1 + size
            at += 1
            if kind == _GIF_PICTURE:
                return
    except IndexError as error:
        raise _ends_early(name, "its first picture is not complete") from error


def _colours(flags: int) -> int:
    """Return the bytes of the table of colours that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_bmp(name: str, data: bytes) -> None:
    """Raise `Invalid` for a file that has fewer rows than it announces, if its pixels are not compressed."""
    start, head = struct.unpack_from("<II", data, 10)
    try:
        if head == 12:
            width, height, _, bits, form = *struct.unpack_from("<HHHH", data, 18), 0
        else:
            width, height, _, bits, form = struct.unpack_from("<iiHHI", data, 18)
    except struct.error as error:
        raise _ends_early(name, "its header is not complete") from error
    row = (abs(width) * bits + 31) // 32 * 4
    if form in _BMP_PLAIN and len(data) < start + row * abs(height):
        raise _ends_early(name, f"{abs(height)} rows need {row * abs(height)} bytes")


_GIF_EXTENSION, _GIF_PICTURE = 0x21, 0x2C
_BMP_PLAIN = (0, 3)
_IMAGE_CHECKS: Mapping[Format, Callable[[str, bytes], None]] = {
    "png": _check_png, "jpeg": _check_jpeg, "gif": _check_gif, "bmp": _check_bmp,
}  # fmt: skip
