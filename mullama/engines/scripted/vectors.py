"""Vectors of texts by hashing their words: no model, but alike where the words are."""

from __future__ import annotations

import hashlib
import math
import re


def vector(text: str, length: int) -> tuple[float, ...]:
    """A unit vector in which texts are near that share words."""
    sums = [0.0] * length
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        seed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        for index in range(length):
            octet = seed[index % 32] ^ (index // 32 * 37 & 0xFF)
            sums[index] += octet / 127.5 - 1.0
    size = math.sqrt(sum(x * x for x in sums)) or 1.0
    return tuple(x / size for x in sums)


def likeness(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))
