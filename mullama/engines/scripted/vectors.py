"""Vectors of texts by hashing their words: similar texts have similar vectors, without a model."""

from __future__ import annotations

import hashlib
import math
import re


def vector(text: str, length: int) -> tuple[float, ...]:
    """Return a unit vector; texts that share words have near vectors."""
    sums = [0.0] * length
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        seed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        for index in range(length):
            byte = seed[index % 32] ^ (index // 32 * 37 & 0xFF)
            sums[index] += byte / 127.5 - 1.0
    size = math.sqrt(sum(x * x for x in sums)) or 1.0
    return tuple(x / size for x in sums)


def similarity(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    """Return the cosine similarity of two unit vectors."""
    return sum(x * y for x, y in zip(left, right, strict=True))
