"""Formats of images and sounds, by the first bytes of a file, and the sizes that the headers state."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Literal

from mullama.chat.media import MediumKind
from mullama.struct import Struct

Format = Literal["png", "jpeg", "bmp", "gif", "webp", "wav", "mp3", "flac", "ogg"]

KINDS: Mapping[Format, MediumKind] = {
    "png": "image", "jpeg": "image", "bmp": "image", "gif": "image", "webp": "image",
    "wav": "audio", "mp3": "audio", "flac": "audio", "ogg": "audio",
}  # fmt: skip
IMAGES = "PNG, JPEG, BMP or GIF"
SOUNDS = "WAV, MP3 or FLAC"
"""The formats that the engine decodes; it refuses WebP and OGG by their names."""


class MediaHeader(Struct, frozen=True, kw_only=True):
    """The facts that the header of a file states; 0 for a size that it does not state."""

    format: Format
    width: int = 0
    height: int = 0
    """Pixels."""
    seconds: float = 0.0


def format_of(data: bytes) -> Format | None:
    """Return the format of a file by its first bytes, None for another format."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(data[8:12])  # type: ignore[return-value]
    for begin, name in _BEGINNINGS.items():
        if data.startswith(begin):
            return name
    # The sync word of an MPEG frame of layer III.
    return "mp3" if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2 else None


_BEGINNINGS: Mapping[bytes, Format] = {
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"BM": "bmp", b"GIF87a": "gif", b"GIF89a": "gif",
    b"ID3": "mp3", b"fLaC": "flac", b"OggS": "ogg",
}  # fmt: skip


def header_of(data: bytes) -> MediaHeader | None:
    """Return the facts of a header; None for an unknown format, and for one that ends before its sizes."""
    name = format_of(data)
    if name is None:
        return None
    try:
        return _READERS[name](data)
    except (struct.error, IndexError, ValueError):
        return None


def _png(data: bytes) -> MediaHeader:
    if data[12:16] != b"IHDR":
        raise ValueError
    width, height = struct.unpack_from(">II", data, 16)
    return MediaHeader(format="png", width=width, height=height)


def _jpeg(data: bytes) -> MediaHeader:
    """Read the frame header, which follows segments of metadata."""
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            raise ValueError
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return MediaHeader(format="jpeg", width=width, height=height)
        at += 2
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):
            at += max(2, struct.unpack_from(">H", data, at)[0])


def _bmp(data: bytes) -> MediaHeader:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return MediaHeader(format="bmp", width=abs(width), height=abs(height))


def _gif(data: bytes) -> MediaHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    return MediaHeader(format="gif", width=width, height=height)


def _webp(data: bytes) -> MediaHeader:
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        if len(data) < 30:
            raise ValueError
    elif chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError
    return MediaHeader(format="webp", width=width, height=height)


def _wav(data: bytes) -> MediaHeader:
    at, rate = 12, 0
    while True:
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt ":
            rate = struct.unpack_from("<I", data, at + 16)[0]  # bytes of one second
        elif name == b"data":
            if not rate:
                raise ValueError
            # A stream of unknown length states the largest size.
            return MediaHeader(format="wav", seconds=min(size, len(data) - at - 8) / rate)
        at += 8 + size + size % 2


def _flac(data: bytes) -> MediaHeader:
    bits = struct.unpack_from(">Q", data, 18)[0]
    rate, samples = bits >> 44, bits & (2**36 - 1)
    if not rate:
        raise ValueError
    return MediaHeader(format="flac", seconds=samples / rate)


def _sized(name: Format) -> Callable[[bytes], MediaHeader]:
    """Return the reader of a format whose length only decoding shows."""
    return lambda data: MediaHeader(format=name)


_READERS: Mapping[Format, Callable[[bytes], MediaHeader]] = {
    "png": _png, "jpeg": _jpeg, "bmp": _bmp, "gif": _gif, "webp": _webp,
    "wav": _wav, "flac": _flac, "mp3": _sized("mp3"), "ogg": _sized("ogg"),
}  # fmt: skip
