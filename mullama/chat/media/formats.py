"""Formats of images and sounds, by the first bytes of a file, and the sizes that the headers state."""

from __future__ import annotations

import re
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
IMAGES = "PNG, JPEG, BMP, GIF or WebP"
SOUNDS = "WAV, MP3, FLAC or OGG"

ROUGH_END = 0.1
"""Seconds of sound that may be missing at the end of a file: writers state sizes that are a little too large."""
_UNKNOWN_SIZE = 0x7FF0_0000
"""Sizes from this one on say that a WAV file was written to a pipe, without knowledge of its length."""
_MOST_PARTS = 10_000
"""Segments or chunks before the sizes: a file of nothing else would take seconds to walk through."""
_MOST_STREAMS = 100  # of an OGG file
OGG_PAGE = 27 + 255 + 255 * 255
"""The most bytes of a page of an OGG file."""
_OPUS_RATE = 48_000
"""Positions of Opus in OGG count at this rate, whatever the rate of the sound was (RFC 7845, 4)."""
_JPEG_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)


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
    for _ in range(_MOST_PARTS):
        found = _JPEG_MARKER.match(data, at)
        if found is None:
            raise ValueError
        marker, at = found[1][0], found.end()
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            return MediaHeader(format="jpeg", width=width, height=height)
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8):
            at += max(2, struct.unpack_from(">H", data, at)[0])
    raise ValueError


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
    if data[12:16] != b"VP8X":
        width, height = _webp_frame(data, 12)
        return MediaHeader(format="webp", width=width, height=height)
    width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    at = 30
    for _ in range(_MOST_PARTS):
        name, size = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8 ", b"VP8L"):
            if _webp_frame(data, at) != (width, height):
                raise ValueError  # the sizes of the canvas are not those of its only frame
            return MediaHeader(format="webp", width=width, height=height)
        if name == b"ANMF":
            left, top, wide, high = (int.from_bytes(data[i : i + 3], "little") for i in range(at + 8, at + 20, 3))
            if 2 * left + wide + 1 > width or 2 * top + high + 1 > height:
                raise ValueError  # the frame is larger than the canvas
            return MediaHeader(format="webp", width=width, height=height)
        at += 8 + size + size % 2
    raise ValueError


def _webp_frame(data: bytes, at: int) -> tuple[int, int]:
    """Return the width and height that the head of compressed pixels states (RFC 9649, 2.5 and 2.6)."""
    if data[at : at + 4] == b"VP8L" and data[at + 8] == 0x2F:
        bits = struct.unpack_from("<I", data, at + 9)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[at : at + 4] == b"VP8 " and data[at + 11 : at + 14] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, at + 14)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError


def _wav(data: bytes) -> MediaHeader:
    form, _, size = wav_samples(data)
    return MediaHeader(format="wav", seconds=form.frames(size) / form.rate)


def wav_samples(data: bytes) -> tuple[WavForm, int, int]:
    """Return the form of a WAV file, the offset of its samples, and their bytes.

    Raises `ValueError` or `struct.error` for a file without them.
    """
    form, at, size = _wav_data(data)
    return form, at, min(size, len(data) - at)


def wav_missing(data: bytes) -> float:
    """Return the seconds that the header of a WAV file states and that it does not have.

    Errors: as `wav_samples`.
    """
    form, at, size = _wav_data(data)
    held = len(data) - at
    # The stated bytes may end inside of the head of a block, so the bytes that are there give the rate.
    seconds = form.frames(held) / form.rate * size / held if 0 < held < size else 0.0
    return missing_seconds(size, held, seconds)


def missing_seconds(stated: int, held: int, seconds: float) -> float:
    """Return the seconds of a sound that are missing, 0 for a WAV file that was written to a pipe.

    stated: bytes of the sound by its header, which are so many seconds. held: bytes that it has.
    """
    return seconds * (stated - held) / stated if held < stated < _UNKNOWN_SIZE else 0.0


def _wav_data(data: bytes) -> tuple[WavForm, int, int]:
    """Return the form, the offset of the samples, and the bytes that their header states."""
    at, form = 12, None
    for _ in range(_MOST_PARTS):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt ":
            form = WavForm.read(data, at + 8, size)
        elif name == b"data":
            if form is None:
                raise ValueError
            return form, at + 8, size
        at += 8 + size + size % 2
    raise ValueError


class WavForm(Struct, frozen=True, kw_only=True):
    """The chunk `fmt` of a WAV file. Decoders do not read the bytes per second that it states."""

    tag: int
    channels: int
    rate: int
    """Frames of one second."""
    block: int
    """Bytes of a frame, or of a block of ADPCM."""
    bits: int

    @property
    def plain(self) -> bool:
        """Each sample has whole bytes of its own: PCM, floats, A-law or mu-law."""
        return self.tag in PLAIN_TAGS and self.bits % 8 == 0

    @classmethod
    def read(cls, data: bytes, at: int, size: int) -> WavForm:
        """Return the form at an offset; raise `ValueError` for one that decoders refuse."""
        tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", data, at)
        if tag == _EXTENSIBLE:
            tag = struct.unpack_from("<H", data, at + 24)[0]
        if size < 16 or not (0 < channels <= 254 and 0 < rate <= 384_000 and 0 < bits <= 64 and block):
            raise ValueError
        return cls(tag=tag, channels=channels, rate=rate, block=block, bits=bits)

    def frames(self, size: int) -> int:
        """Return the frames in these bytes; raise `ValueError` for blocks that are smaller than their heads."""
        if self.tag not in _ADPCM_HEADS:
            return size // (self.block if self.bits % 8 else self.bits // 8 * self.channels)
        blocks = -(-size // self.block)
        heads = blocks * _ADPCM_HEADS[self.tag] * self.channels
        if heads > size or self.channels > 2:
            raise ValueError
        return (size - heads) * 2 // self.channels + blocks


_EXTENSIBLE = 0xFFFE
PLAIN_TAGS = (1, 3, 6, 7)
_ADPCM_HEADS: Mapping[int, int] = {0x02: 6, 0x11: 4}
"""Bytes at the beginning of a block, for each channel, by the tag of the format. Each other byte has two samples."""


def _flac(data: bytes, at: int = 0) -> MediaHeader:
    bits = struct.unpack_from(">Q", data, at + 18)[0]
    rate, samples = bits >> 44, bits & (2**36 - 1)
    if not rate:
        raise ValueError
    return MediaHeader(format="flac", seconds=samples / rate)


def _mp3(data: bytes) -> MediaHeader:
    """Read what follows ID3 tags: FLAC and OGG may have them too. Only decoding shows the length of MPEG."""
    at = 0
    for _ in range(_MOST_PARTS):
        after = after_tag(data, at)
        if after == at:
            if data[at : at + 4] == b"fLaC":
                return _flac(data, at)
            return _ogg(data, at) if data[at : at + 4] == b"OggS" else MediaHeader(format="mp3")
        at = after
    raise ValueError


def after_tag(data: bytes, at: int = 0) -> int:
    """Return the offset after the ID3 tag at an offset; the same one without a tag."""
    if data[at : at + 3] != b"ID3" or len(data) < at + 10:
        return at
    size = 0
    for byte in data[at + 6 : at + 10]:
        size = size << 7 | byte & 127
    return at + 10 + size + (10 if data[at + 5] & 0x10 else 0)


def _ogg(data: bytes, at: int = 0) -> MediaHeader:
    """Read the duration of the first stream of Vorbis or Opus: the position that its last page states (RFC 3533, 6)."""
    for _ in range(_MOST_STREAMS):
        serial, body, after = _ogg_page(data, at)
        if not data[at + 5] & 2:  # the first pages of all streams are at the beginning
            break
        if data[body : body + 7] == b"\x01vorbis":
            rate = struct.unpack_from("<I", data, body + 12)[0]
            return MediaHeader(format="ogg", seconds=_last_position(data, serial) / rate if rate else 0.0)
        if data[body : body + 8] == b"OpusHead":
            samples = _last_position(data, serial) - struct.unpack_from("<H", data, body + 10)[0]
            return MediaHeader(format="ogg", seconds=max(0, samples) / _OPUS_RATE)
        at = after
    return MediaHeader(format="ogg")


def _ogg_page(data: bytes, at: int) -> tuple[bytes, int, int]:
    """Return the serial number of a page's stream, the offset of its body, and the offset after it."""
    if data[at : at + 4] != b"OggS":
        raise ValueError
    body = at + 27 + data[at + 26]
    return data[at + 14 : at + 18], body, body + sum(data[at + 27 : body])


def ogg_ends_early(end: bytes) -> bool:
    """Return whether the last page of an OGG file is not complete. end: its last bytes, at least `OGG_PAGE` of them."""
    at = end.rfind(b"OggS\x00")
    try:
        return at >= 0 and _ogg_page(end, at)[2] > len(end)
    except IndexError:
        return True


def _last_position(data: bytes, serial: bytes) -> int:
    """Return the position in samples that the last page of a stream states; 0 if none does."""
    at = len(data)
    for _ in range(_MOST_PARTS):
        at = data.rfind(b"OggS\x00", 0, at)
        if at < 0:
            break
        position = struct.unpack_from("<q", data, at + 6)[0] if len(data) >= at + 18 else -1
        if data[at + 14 : at + 18] == serial and position >= 0:
            return int(position)
    return 0


_READERS: Mapping[Format, Callable[[bytes], MediaHeader]] = {
    "png": _png, "jpeg": _jpeg, "bmp": _bmp, "gif": _gif, "webp": _webp,
    "wav": _wav, "flac": _flac, "mp3": _mp3, "ogg": _ogg,
}  # fmt: skip
