"""Vectors of media in place of tokens: the chunks of a medium, and the batch that a context decodes them from."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np

from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.struct import Struct


class MediaChunk(Struct, frozen=True, kw_only=True):
    """Vectors that a context decodes together: an image, a tile of one, or some seconds of a sound."""

    handle: Any
    """Valid until its `Pieces` are closed."""
    tokens: int
    """Vectors, and cells of a context."""
    positions: int
    """Positions that the text after it counts from it; fewer than `tokens` for images with M-RoPE."""
    whole: bool
    """Every vector sees every other (attention without causality): all of them need one micro-batch."""
    place: tuple[Ids, Ids] | None
    """The first position's factor and the offset of every position, (sections, tokens) each; None for plain counting.
    See `positions_at`."""


def positions_at(first: int, count: int, place: tuple[Ids, Ids] | None) -> Ids:
    """Return the positions of the vectors of a chunk that begins at `first`, (sections, count)."""
    if place is None:
        return np.arange(first, first + count, dtype=np.int32)[None, :]
    factor, offset = place
    return factor * np.int32(first) + offset


class VectorBatch:
    """Vectors of one sequence in place of tokens, for one decode. None of them gets logits."""

    def __init__(self, sequence: int, vectors: Floats, positions: Ids) -> None:
        """vectors: (count, width); positions: (sections, count)."""
        count = len(vectors)
        self.count = count
        self._vectors = np.ascontiguousarray(vectors)
        self._positions = np.ascontiguousarray(positions, np.int32)
        self._counts = np.ones(count, np.int32)
        self._sequences = np.full(count, sequence, np.int32)
        self._outputs = np.zeros(count, np.int8)
        base = self._sequences.ctypes.data
        self._pointers = np.arange(base, base + 4 * count, 4, dtype=np.uint64)
        self._struct = c.llama_batch(n_tokens=count)
        kinds = dict(c.llama_batch._fields_)
        for name, array in (
            ("embd", self._vectors),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            setattr(self._struct, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def struct(self) -> Any:
        return self._struct
