"""The duration of a stream of MPEG audio (MP3), as an upper bound of what miniaudio decodes from it, and its end. Pure.

Nothing reliable states the duration. miniaudio looks for the next frame after bytes that are none, also in a file of
another format that it could not read; it believes the number of frames that the first one states (a tag Xing or Info),
and it converts all frames by the rate of the first. So a duration counts all frames, at the lowest rate, and all tags.

The end is missed only where the tag of an encoder states the bytes of the stream.
"""

from __future__ import annotations

import math
import re
from heapq import heappop, heappush

from mullama.chat.media.formats import missing_seconds
from mullama.struct import Struct

_SAMPLES = {  # per frame, by (version, layer); version 3 is MPEG 1, layer 1 is III
    (3, 1): 1152, (3, 2): 1152, (3, 3): 384, (2, 1): 576, (2, 2): 1152, (2, 3): 384,
    (0, 1): 576, (0, 2): 1152, (0, 3): 384,
}  # fmt: skip
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BITRATES = {  # kbit/s, by (MPEG 1, layer)
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # fmt: skip
# The sync word, a version and a layer that exist, a bitrate or 0 (free format), and a rate that is stated.
_THIRD = b"[" + b"".join(b"\\x%x0-\\x%xb" % (n, n) for n in range(15)) + b"]"
_REST = b"[\xe2-\xe7\xf2-\xf7\xfa-\xff]" + _THIRD
_HEADER = re.compile(b"\xff" + _REST)
_FRAME = re.compile(b"(\xff)(?=(" + _REST + b"))")  # headers overlap: the second byte of one may begin another
# A tag stands after the checksum (2 bytes) and the side information, whose bytes depend on version and channels.
_SIDES = (
    (b"[\xfa\xfc\xfe]", 2, 32, 17), (b"[\xfb\xfd\xff]", 0, 32, 17),
    (b"[\xe2\xe4\xe6\xf2\xf4\xf6]", 2, 17, 9), (b"[\xe3\xe5\xe7\xf3\xf5\xf7]", 0, 17, 9),
)  # fmt: skip
_SIDE = b"|".join(
    second + _THIRD + b"(?:[\x00-\xbf].{%d}|[\xc0-\xff].{%d})" % (checksum + stereo, checksum + mono)
    for second, checksum, stereo, mono in _SIDES
)
_TAG = re.compile(b"\xff(?=(?:" + _SIDE + b")(?:Xing|Info)...(.)(.{4}))", re.DOTALL)
_VBRI = re.compile(b"\xff(?=" + _REST + b".{33}VBRI.{6}(.{4})(.{4}))", re.DOTALL)
"""The tag of the encoders of Fraunhofer: bytes and frames."""
MPEG_HEAD = 4096
"""Bytes at the beginning of a stream in which its first frame stands."""
_HEADER_BYTES = 4
_MOST_FRAMES = 250  # of a second: twice those of layer I at 48 kHz; chance makes few in other bytes
_MOST_SEARCHES = 1000
"""For the size of a frame of free format. After so many all have one, so that no file takes minutes to search."""
_LONGEST_FREE = 2304  # bytes of a frame of free format that miniaudio looks for


def mpeg_seconds(data: bytes, most: float, start: int = 0) -> float:
    """Return the seconds of the frames from `start` on, or some number above `most`.

    Frames overlap where one is data of another. miniaudio reads a frame only if up to ten of its kind follow, so bytes
    can hide short frames in a long one that it passes over. The result is that of the chain of frames that do not
    overlap and that has the most samples.
    """
    seconds = max((_stated(data, tag) for tag in _TAG.finditer(data, start)), default=0.0)
    ends: list[tuple[int, int]] = []  # a heap of (end of a frame, samples of the longest chain to it)
    longest = lowest = 0  # samples of a chain that has ended, and the lowest rate
    left, searches = 1000 + int(most) * _MOST_FRAMES + len(data) // 1000, _MOST_SEARCHES
    for found in _FRAME.finditer(data, start):
        at, left = found.start(), left - 1
        while ends and ends[0][0] <= at:
            longest = max(longest, heappop(ends)[1])
        size, count, hertz = _frame(found[1] + found[2])
        if not lowest or hertz < lowest:
            if size:
                agrees = _follows(data, at, size)
            else:
                searches -= 1
                agrees = searches < 0 or _repeats(data, at)
            lowest = hertz if agrees else lowest
        heappush(ends, (at + (size or _HEADER_BYTES), longest + count))
        seconds = max(seconds, (longest + count) / (lowest or hertz))
        if seconds > most or not left:
            return max(seconds, math.nextafter(most, math.inf))
    return max(seconds, max((samples for _, samples in ends), default=longest) / (lowest or _RATES[3][0]))


class MpegTag(Struct, frozen=True, kw_only=True):
    """The tag of an encoder in the first frame of a stream: Xing or Info (LAME), or VBRI (Fraunhofer)."""

    start: int
    """Offset of its frame."""
    bytes: int
    """Of the stream from that frame on."""
    seconds: float

    def missing(self, size: int) -> float:
        """Return the seconds that it states and that a stream of this size does not have."""
        return missing_seconds(self.bytes, size - self.start, self.seconds)


def mpeg_tag(head: bytes) -> MpegTag | None:
    """Return the tag of a stream; None without one that states bytes and frames.

    head: the first bytes of the stream, after tags of ID3.
    """
    if found := _TAG.search(head, 0, MPEG_HEAD):
        if found[1][0] & 3 != 3:  # its frames and its bytes
            return None
        end = found.end(2)
        size = int.from_bytes(head[end : end + 4], "big")
        return MpegTag(start=found.start(), bytes=size, seconds=_stated(head, found))
    if found := _VBRI.search(head, 0, MPEG_HEAD):
        _, samples, hertz = _frame(head[found.start() : found.start() + 3])
        seconds = int.from_bytes(found[2], "big") * samples / hertz
        return MpegTag(start=found.start(), bytes=int.from_bytes(found[1], "big"), seconds=seconds)
    return None


def _stated(data: bytes, tag: re.Match[bytes]) -> float:
    """Return the seconds that a tag states, 0 if it states no number of frames (flag 1)."""
    if not tag[1][0] & 1:
        return 0.0
    _, samples, hertz = _frame(data[tag.start() : tag.start() + 3])
    return int.from_bytes(tag[2], "big") * samples / hertz


def _follows(data: bytes, at: int, size: int) -> bool:
    """Return whether a frame of the same kind, or the end, follows the frame at an offset."""
    after = at + size
    return after == len(data) or _agree(data[at : at + 3], data[after : after + 3])


def _repeats(data: bytes, at: int) -> bool:
    """Return whether a frame of the same kind follows one of free format, whose size its distance states."""
    others = _FRAME.finditer(data, at + 3, at + _LONGEST_FREE)
    return any(_agree(data[at : at + 3], other[1] + other[2]) for other in others)


def _agree(first: bytes, second: bytes) -> bool:
    """Return whether two headers have the same version, layer and rate, and are both of free format or both not."""
    return bool(
        _HEADER.fullmatch(second)
        and not (first[1] ^ second[1]) & 0xFE
        and not (first[2] ^ second[2]) & 0x0C
        and (first[2] < 0x10) == (second[2] < 0x10)
    )


def _frame(header: bytes) -> tuple[int, int, int]:
    """Return the bytes, samples and rate of a frame (ISO 11172-3, 2.4.1.3); 0 bytes for free format."""
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    samples, hertz = _SAMPLES[version, layer], _RATES[version][rate]
    if not bitrate:
        return 0, samples, hertz
    bits = _BITRATES[version == 3, layer][bitrate - 1] * 1000
    unit = 4 if layer == 3 else 1
    return (samples * bits // 8 // hertz // unit + padding) * unit, samples, hertz
