"""Draws the next tokens of several requests at once: top-k, top-p, min-p, temperature and the draw of llama.cpp.

These are the samplers of most requests. Their chain takes longer to be called than to choose among 40 candidates, so
numpy applies them to the rows of one decode together. The arithmetic is that of llama_sampler_top_p_apply,
_min_p_apply, _temp_impl and _dist_apply, in the same order and precision and with the same random numbers, so that a
seed gives the tokens that the chain gives. Only where two logits are equal may another one come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.generator import DrawGenerator
from mullama.engines.llamacpp.sampling.top_rows import Indexes, top

MOST_CANDIDATES = 512
MOST_BIASES = 16


class TopDraw:
    """The settings and the random numbers of one request. `biases` only lower."""

    def __init__(
        self,
        *,
        k: int,
        p: float,
        log_ratio: float,
        keep: int,
        temperature: float,
        biases: tuple[tuple[int, float], ...],
        seed: int,
    ) -> None:
        """log_ratio: of min-p; -inf for no cut. p: of top-p; 1 for no cut."""
        self.k = k
        self.settings = (k, keep, p, log_ratio, temperature)
        self.biases = biases
        self.count = k + len(biases)
        self._seed = seed

    @cached_property
    def generator(self) -> DrawGenerator:
        return DrawGenerator(self._seed)


def draw_together(
    draws: Sequence[TopDraw], rows: Sequence[int], masks: Sequence[bytes | None], logits: Floats
) -> list[int]:
    """Return a token for each request.

    rows: of the logits, increasing, one for each request. masks: the allowed tokens of each, one bit each, lowest
    first; None for all.
    """
    found = top(logits, rows, masks, max(draw.count for draw in draws))
    if any(draw.biases for draw in draws):
        for indexes, token, bias in _by_bias(draws):
            found.add(indexes, token, bias)
    ids, best = found.best(max(draw.k for draw in draws))
    chosen = _draw(best, draws)
    tokens: list[int] = ids[np.arange(len(draws)), chosen].tolist()
    return tokens


def _by_bias(draws: Iterable[TopDraw]) -> Iterator[tuple[list[int], int, float]]:
    """Yield each bias with the indexes of the requests that have it."""
    groups: dict[tuple[tuple[int, float], ...], list[int]] = {}
    for index, draw in enumerate(draws):
        if draw.biases:
            groups.setdefault(draw.biases, []).append(index)
    for biases, indexes in groups.items():
        for token, bias in biases:
            yield indexes, token, bias


@np.errstate(invalid="ignore")  # logits that are no numbers draw any token
def _draw(best: Floats, draws: Sequence[TopDraw]) -> Indexes:
    """Return the column of each row that is drawn. best: the largest logits of each row, best first."""
    settings = np.array([draw.settings for draw in draws])[:, :, None]
    k, keep = settings[:, 0], settings[:, 1]
    p, log_ratio, temperature = settings[:, 2:].astype(np.float32).transpose(1, 0, 2)
    numbers = np.array([draw.generator.next() for draw in draws])[:, None]
    at = np.arange(best.shape[1])
    logits = np.where(at < k, best, np.float32(-np.inf))
    peak = logits[:, :1]
    left = k[:, 0]
    if (p < 1).any():
        chances = _exp(logits - peak)
        chances /= chances.cumsum(axis=1)[:, -1:]
        enough = (chances.cumsum(axis=1) >= p) & (at + 1 >= keep) & (p < 1)
        left = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, left)
    if (log_ratio > -np.inf).any():
        unlikely = (logits < peak + log_ratio) & (at >= np.maximum(keep, 1))
        left = np.where(unlikely.any(axis=1), np.minimum(left, unlikely.argmax(axis=1)), left)
    logits = np.where(at < left[:, None], logits, np.float32(-np.inf))
    logits /= temperature
    sums = _exp(logits - logits[:, :1]).cumsum(axis=1, dtype=np.float64)
    chosen: Indexes = (sums >= sums[:, -1:] * numbers).argmax(axis=1)
    return chosen


def _exp(values: Floats) -> Floats:
    """Return exponentials rounded as the C library rounds them; numpy's of single precision are less exact."""
    return np.exp(values.astype(np.float64)).astype(np.float32)
