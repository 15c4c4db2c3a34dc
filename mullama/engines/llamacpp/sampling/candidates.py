"""Selects the tokens that a sampler chain could choose, with numpy over a row of logits, at memory speed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats, Ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCKS = 64  # rows of the folded logits, see `largest`
_OFFSETS = np.arange(_BLOCKS)[:, None]
_FIRST_NUCLEUS = 256  # tokens looked at first for a nucleus
_MANY = 4096  # tokens; a larger nucleus is not sorted


def largest(row: Floats, count: int) -> Ids | None:
    """Return ids of the `count` largest values, unordered; None when they are half of all or more.

    The row is folded into `_BLOCKS` rows, and numpy finds the largest of each column at memory speed. Every value
    among the `count` largest lies in one of the `count` columns with the largest maxima.
    """
    size = len(row)
    columns = size // _BLOCKS
    if count * 8 > columns:
        if count * 2 > size:
            return None
        return np.argpartition(row, -count)[-count:].astype(np.int32)
    folded = row[: columns * _BLOCKS].reshape(_BLOCKS, columns)
    best = np.argpartition(folded.max(axis=0), -count)[-count:]
    rest = np.arange(columns * _BLOCKS, size)
    ids = np.concatenate(((best + _OFFSETS * columns).ravel(), rest))
    return ids[np.argpartition(row[ids], -count)[-count:]].astype(np.int32)


def largest_allowed(row: Floats, allowed: bytes, count: int) -> Ids:
    """Return ids of at least the `count` largest allowed values (all when fewer), ascending by value."""
    ids = largest(row, 4 * count)
    if ids is not None:
        ids = ids[set_bits(allowed, ids)]
    if ids is None or len(ids) < count:
        ids = allowed_ids(allowed, len(row))
        best = largest(row[ids], count) if len(ids) > count else None
        ids = ids if best is None else ids[best]
    return ids[row[ids].argsort()]


def nucleus(row: Floats, p: float, keep: int) -> Ids:
    """Return the likeliest tokens with a total probability of at least `p`, and at least `keep` tokens.

    The cut of llama_sampler_top_p. Up to `_MANY` tokens are sorted, best first. A peaked distribution has its
    nucleus among the few largest values. For a flat one only the values are sorted to find where the nucleus ends,
    which is five times as fast as to sort the tokens by them.
    """
    peak = row.max()
    ids = largest(row, max(_FIRST_NUCLEUS, keep))
    if ids is not None:
        ids = ids[row[ids].argsort()[::-1]]
        wanted = p * float(np.exp(row - peak).sum(dtype=np.float64))
        reached = np.exp(row[ids] - peak).cumsum(dtype=np.float64)
        count = max(int(np.searchsorted(reached, wanted)) + 1, keep)
        if count <= len(ids):
            return ids[:count]
    values = np.sort(row)
    sums = np.exp(values - peak).astype(np.float64).cumsum()
    outside = int(np.searchsorted(sums, (1 - p) * sums[-1], side="right"))
    count = min(max(len(row) - outside, keep, 1), len(row))
    least = values[-count]
    above, level = np.flatnonzero(row > least), np.flatnonzero(row == least)
    ids = np.concatenate((above, level[: count - len(above)])).astype(np.int32)
    return ids if count > _MANY else ids[row[ids].argsort()[::-1]]


def likely(row: Floats, ratio: float, keep: int) -> Ids:
    """Return the tokens at least `ratio` times as likely as the likeliest, or the `keep` likeliest, best first.

    The cut of llama_sampler_min_p.
    """
    ids = np.flatnonzero(row >= row.max() + math.log(min(ratio, 1.0)))
    if len(ids) < keep:
        best = largest(row, keep)
        best = np.arange(len(row), dtype=np.int32) if best is None else best
        return best[row[best].argsort()[::-1]]
    return ids.astype(np.int32)


def allowed_ids(allowed: bytes, size: int) -> Ids:
    """Return the tokens whose bit is set, ascending."""
    flags = np.unpackbits(np.frombuffer(allowed, np.uint8), count=size, bitorder="little")
    return np.flatnonzero(flags).astype(np.int32)


def set_bits(allowed: bytes, ids: Ids) -> NDArray[np.bool_]:
    """Return a boolean for each id: its bit is set."""
    octets = np.frombuffer(allowed, np.uint8)[ids >> 3]
    flags: NDArray[np.bool_] = (octets >> (ids & 7).astype(np.uint8)) & 1 == 1
    return flags


def log_probabilities(row: Floats, chosen: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the natural logarithm of the chosen token's probability, and the likeliest tokens with theirs, best first.

    They belong to the model's own distribution (softmax of the logits), before any sampler or grammar.
    """
    peak = row.max()
    total = float(peak) + math.log(float(np.exp(row - peak).sum(dtype=np.float64)))
    best: list[tuple[int, float]] = []
    if alternatives:
        ids = largest(row, alternatives)
        ids = np.arange(len(row), dtype=np.int32) if ids is None else ids
        ids = ids[row[ids].argsort()[::-1]][:alternatives]
        best = [(int(i), float(row[i]) - total) for i in ids]
    return float(row[chosen]) - total, best
