"""The largest logits of several rows at once, and the logarithms of their probabilities.

A call of numpy costs as much as its work on a small row, so the rows of one decode are treated together. Rows of a
large vocabulary are treated in groups that fit the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUP = 1 << 16  # logits: 256 KB, so that a temporary copy stays in a core's own cache
_LARGEST_FOLD = 64
_SPREAD = 8  # columns for each value that is searched, so that few of the largest share a column
_CROWD = 8  # candidates for each value that is searched; more only where many logits are equal
# For each byte of a mask the largest value that each of its eight tokens may keep. The smaller of logit and bound takes
# a tenth of the time of a choice by flags, and is the bound where the logit is no number.
_BOUNDS = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), np.inf, -np.inf
).astype(np.float32)

Indexes = np.ndarray[tuple[Any, ...], np.dtype[np.intp]]
Best = tuple[Indexes, Floats]
"""Ids and logits of candidates, (rows, columns), best first; equal ones in the order of their ids."""


class TopRows:
    """Candidates of several rows, by id; a row with fewer than the columns ends with logits of -inf.

    ids, logits: (rows, columns).
    """

    def __init__(self, ids: Indexes, logits: Floats) -> None:
        self._ids = ids
        self._logits = logits

    def best(self, columns: int) -> Best:
        """Return the ids and logits of the best candidates, best first; equal ones in the order of their ids."""
        order = (-self._logits).argsort(axis=1, kind="stable")[:, :columns]
        order += np.arange(0, self._ids.size, self._ids.shape[1])[:, None]
        return self._ids.take(order), self._logits.take(order)


def likeliest(logits: Floats, rows: Sequence[int], masks: Sequence[bytes | None]) -> list[int]:
    """Return the token with the largest logit of each of these rows, the first of equals.

    masks: the allowed tokens of each row, one bit each, lowest first; None for all.
    """
    if len(rows) == len(logits) and not any(masks):
        whole: list[int] = logits.argmax(axis=1).tolist()
        return whole
    return [token for group in _groups(logits, rows, masks) for token in group.argmax(axis=1).tolist()]


def top(logits: Floats, rows: Sequence[int], masks: Sequence[bytes | None], count: int) -> TopRows:
    """Return at least the `count` largest logits of each of these rows (all of a row that has fewer).

    masks: as for `likeliest`.
    """
    found = [_top(group, count) for group in _groups(logits, rows, masks)]
    lengths, tokens, values = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
    columns = int(lengths.max())
    if len(tokens) == len(rows) * columns:
        return TopRows(tokens.reshape(-1, columns), values.reshape(-1, columns))
    ids, best = np.zeros((len(rows), columns), np.intp), np.full((len(rows), columns), -np.inf, np.float32)
    filled = np.arange(columns) < lengths[:, None]
    ids[filled], best[filled] = tokens, values
    return TopRows(ids, best)


def log_probabilities(
    logits: Floats, rows: Sequence[int], chosen: Sequence[int], alternatives: int, best: Best | None = None
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return for each of these rows what `candidates.log_probabilities` returns.

    best: at least the `alternatives` best candidates of these rows, where they are known.
    """
    totals = np.concatenate([_log_total(group) for group in _groups(logits, rows, [None] * len(rows))])
    own = (logits[rows, chosen] - totals).tolist()
    if not alternatives:
        return [(value, []) for value in own]
    if best is None:
        best = top(logits, rows, [None] * len(rows), alternatives).best(alternatives)
    ids, values = best[0][:, :alternatives], best[1][:, :alternatives]
    pairs = zip(own, ids.tolist(), (values - totals[:, None]).tolist(), strict=True)
    return [(value, list(zip(tokens, others, strict=True))) for value, tokens, others in pairs]


def best_of_all(best: Best, logits: Floats, rows: Sequence[int], forbidden: Sequence[int]) -> Best:
    """Return candidates among all tokens, given those without the forbidden ones, which are the same in each row."""
    if not forbidden:
        return best
    others = np.array(forbidden, np.intp)
    ids = np.concatenate((best[0], np.broadcast_to(others, (len(rows), len(others)))), axis=1)
    values = np.concatenate((best[1], logits[np.array(rows)[:, None], others]), axis=1)
    order = np.lexsort((ids, -values), axis=1)[:, : best[0].shape[1]]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)


def _log_total(group: Floats) -> NDArray[np.float64]:
    """Return the logarithm of the sum of the exponentials of each row."""
    peak = group.max(axis=1, keepdims=True)
    weights = group - peak
    totals: NDArray[np.float64] = peak[:, 0] + np.log(np.exp(weights, out=weights).sum(axis=1), dtype=np.float64)
    return totals


def _groups(logits: Floats, rows: Sequence[int], masks: Sequence[bytes | None]) -> Iterator[Floats]:
    """Yield these rows in groups, with -inf for tokens that are not allowed."""
    size = logits.shape[1]
    step = max(1, _GROUP // size)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        first = part[0]
        together = part[-1] - first == len(part) - 1
        group = logits[first : first + len(part)] if together else logits[part]
        bound = [(at, mask) for at, mask in enumerate(masks[start : start + step]) if mask is not None]
        if bound:
            octets = np.frombuffer(b"".join([mask for _, mask in bound]), np.uint8).reshape(len(bound), -1)
            bounds = _BOUNDS.take(octets, axis=0).reshape(len(bound), -1)[:, :size]
            if len(bound) == len(part):
                group = np.fmin(group, bounds)
            else:
                group = group.copy() if together else group
                indexes = [at for at, _ in bound]
                group[indexes] = np.fmin(group[indexes], bounds)
        yield group


def _top(group: Floats, count: int) -> tuple[Indexes, Indexes, Floats]:
    """Return for each row of a group the number of its candidates, then all ids and logits, row by row.

    The row is folded, and the largest value of each column is found at memory speed. The `count`-th largest of these
    is at most the `count`-th largest value of the row, so no smaller value is among the `count` largest.
    """
    rows, size = group.shape
    fold = min(_LARGEST_FOLD, size // (_SPREAD * count))
    columns = size // fold if fold > 1 else size
    if count >= size:
        flat = np.arange(group.size)
    else:
        folded = group[:, : fold * columns].reshape(rows, fold, columns).max(axis=1) if fold > 1 else group
        least = np.partition(folded, columns - count, axis=1)[:, columns - count]
        flat = np.flatnonzero(group >= least[:, None])
    at, ids = np.divmod(flat, size)
    lengths = np.bincount(at, minlength=rows)
    if len(flat) > _CROWD * count * rows or not lengths.all():
        return _crowded(group, count)
    return lengths, ids, group.reshape(-1)[flat]


def _crowded(group: Floats, count: int) -> tuple[Indexes, Indexes, Floats]:
    """Return what `_top` does of rows with many equal logits, or with some that are no numbers."""
    count = min(count, group.shape[1])
    ids = np.sort(np.argpartition(group, -count, axis=1)[:, -count:], axis=1)
    return np.full(len(group), count), ids.reshape(-1), np.take_along_axis(group, ids, 1).reshape(-1)
