"""The end of a FLAC file (RFC 9639): whether its last frame is the one with which its stream ends. Pure."""

from __future__ import annotations

import re
import struct
from itertools import islice

_FRAME = re.compile(rb"\xff(?=[\xf8\xf9])")
_SEARCHED = 1 << 20
"""Bytes at the end in which the head of the last frame stands."""
_MOST_HEADS = 10_000
"""Of frames in these bytes: chance makes some dozens, and each takes time."""
_HEAD = 16
"""The most bytes of the head of a frame."""
_STREAM_INFO = 38


def flac_missing(data: bytes, start: int = 0) -> float:
    """Return the seconds that a file states and whose frames it does not have; 0 where that cannot be known.

    A part of the last frame may be missing, too: it is shorter than 65,536 samples, and mostly than 5,000.

    start: the offset of the marker `fLaC`.
    """
    if data[start : start + 4] != b"fLaC" or len(data) < start + _STREAM_INFO:
        return 0.0
    smallest, largest = struct.unpack_from(">HH", data, start + 8)
    (bits,) = struct.unpack_from(">Q", data, start + 18)
    rate, samples = int(bits >> 44), int(bits & (2**36 - 1))
    heads = _FRAME.finditer(data, max(start + _STREAM_INFO, len(data) - _SEARCHED))
    ends = [
        end
        for found in islice(heads, _MOST_HEADS)
        if (end := _end_of(data[found.start() : found.start() + _HEAD], smallest, largest)) is not None
    ]
    # Chance makes some heads in other bytes. Only the one of the last frame leads to the end of the stream.
    if not (rate and samples and ends) or samples in ends:
        return 0.0
    return (samples - max((end for end in ends if end < samples), default=0)) / rate


def _end_of(head: bytes, smallest: int, largest: int) -> int | None:
    """Return the samples of the stream up to the end of a frame; None if these bytes are not the head of one.

    smallest, largest: samples of the blocks of the stream. Those of a fixed size are counted in blocks.
    """
    try:
        number, at = _number(head)
        size, rate = head[2] >> 4, head[2] & 15
        if not size or rate == 15 or head[3] >> 4 > 10 or head[3] & 1:
            return None
        if size == 1:
            count = 192
        elif size < 6:
            count = 576 << size - 2
        elif size < 8:
            count = 1 + int.from_bytes(head[at : at + size - 5], "big")
            at += size - 5
        else:
            count = 256 << size - 8
        at += 0 if rate < 12 else 1 if rate == 12 else 2
        if _crc(head[:at]) != head[at]:
            return None
    except IndexError:
        return None
    if head[1] & 1:
        return number + count
    return number * largest + count if smallest == largest else None


def _number(head: bytes) -> tuple[int, int]:
    """Return the number of a frame or of its first sample, coded like a character of UTF-8, and the offset after it."""
    first = head[4]
    more = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()
    number = first & (0x7F if not more else 0x3F >> more)
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    return number, 5 + more


def _crc(data: bytes) -> int:
    """Return the CRC-8 of the head of a frame (polynomial 7)."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
    return value
