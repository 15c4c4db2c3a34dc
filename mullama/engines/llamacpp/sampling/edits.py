"""Biases and penalties of requests, applied to the rows of one decode together.

They are written into llama.cpp's logits, of which they touch a few hundred, and taken back after the choice: a copy of
the rows would cost more than the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.struct import Struct

LONGEST_WINDOW = 256  # tokens; the tokens of a window are compared with each other

Biases = tuple[tuple[int, float], ...]


class Penalties(Struct, frozen=True, kw_only=True):
    """The settings of llama.cpp's sampler of this name."""

    last: int
    """The number of past tokens that count."""
    repeat: float
    frequency: float
    presence: float


class LogitEdits:
    """The changes of one request to its logits, with the tokens that its penalties count.

    `forbidden` are the tokens that are never chosen, None if there are other changes.
    """

    def __init__(self, biases: Biases, penalties: Penalties | None) -> None:
        self.biases = _merged(biases)
        self.penalties = penalties
        self.window: Ids = np.full(penalties.last if penalties else 0, -1, np.int32)
        self._next = 0
        lowers = penalties is None and all(bias <= 0 for _, bias in self.biases)
        self.lowered = frozenset(token for token, _ in self.biases) if lowers else None
        forbids = penalties is None and all(bias == -math.inf for _, bias in self.biases)
        self.forbidden = tuple(token for token, _ in self.biases) if forbids else None

    def spares(self, token: int) -> bool:
        """Return True if the likeliest token stays the likeliest: it is not lowered, and no other is raised."""
        return self.lowered is not None and token not in self.lowered

    def accept(self, token: int) -> None:
        """Count a token, in place of the oldest."""
        if self.penalties is not None:
            self.window[self._next] = token
            self._next = (self._next + 1) % self.penalties.last


def _merged(biases: Biases) -> Biases:
    """Return the sum of the biases of each token."""
    sums: dict[int, float] = {}
    for token, bias in biases:
        sums[token] = sums.get(token, 0.0) + bias
    return tuple(sums.items())


@contextmanager
def edited(edits: Sequence[LogitEdits | None], rows: Sequence[int], logits: Floats) -> Iterator[None]:
    """Change the rows of these requests, biases before penalties, and restore them at the end."""
    biased, penalised = _grouped(tuple(edits), tuple(rows))
    undo: list[Callable[[], None]] = []
    try:
        for lines, tokens, values in biased:
            _change(logits, lines, tokens, partial(np.add, values), undo)
        for penalties, lines, members in penalised:
            _penalise(logits, lines, np.array([edit.window for edit in members]), penalties, undo)
        yield
    finally:
        for restore in reversed(undo):
            restore()


_Biased = tuple[Ids, Ids, Floats]  # rows as a column, tokens, biases
_Penalised = tuple[Penalties, Ids, tuple[LogitEdits, ...]]  # rows, and their requests


@lru_cache(maxsize=2)  # most decodes have the requests of the one before
def _grouped(
    edits: tuple[LogitEdits | None, ...], rows: tuple[int, ...]
) -> tuple[Sequence[_Biased], Sequence[_Penalised]]:
    """Return the rows of each set of biases, and of each kind of penalties."""
    biased: dict[Biases, list[int]] = {}
    penalised: dict[Penalties, list[tuple[int, LogitEdits]]] = {}
    for edit, row in zip(edits, rows, strict=True):
        if edit is not None and edit.biases:
            biased.setdefault(edit.biases, []).append(row)
        if edit is not None and edit.penalties is not None:
            penalised.setdefault(edit.penalties, []).append((row, edit))
    return [
        (
            np.array(lines)[:, None],
            np.array([token for token, _ in biases]),
            np.array([bias for _, bias in biases], np.float32),
        )
        for biases, lines in biased.items()
    ], [
        (penalties, np.array([row for row, _ in members]), tuple(edit for _, edit in members))
        for penalties, members in penalised.items()
    ]


def _change(
    logits: Floats, rows: Ids, tokens: Ids, change: Callable[[Floats], Floats], undo: list[Callable[[], None]]
) -> None:
    old = logits[rows, tokens]
    logits[rows, tokens] = change(old)
    undo.append(lambda: logits.__setitem__((rows, tokens), old))


def _penalise(logits: Floats, rows: Ids, windows: Ids, penalties: Penalties, undo: list[Callable[[], None]]) -> None:
    """Do what llama_sampler_penalties_apply does. windows: (rows, last), -1 for no token."""
    present = windows >= 0
    counts: Floats | None = None
    if penalties.frequency:
        counts = (windows[:, :, None] == windows[:, None, :]).sum(axis=2, dtype=np.float32)[present]

    def change(old: Floats) -> Floats:
        repeat = np.float32(penalties.repeat)
        new = np.where(old <= 0, old * repeat, old / repeat)
        less = np.float32(penalties.presence)
        return new - less if counts is None else new - (counts * np.float32(penalties.frequency) + less)

    line, column = np.nonzero(present)
    _change(logits, rows[line], windows[line, column], change, undo)
