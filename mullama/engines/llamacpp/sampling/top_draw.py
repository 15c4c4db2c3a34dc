"""Draws the next tokens of several requests at once: top-k, top-p, min-p, temperature and the draw of llama.cpp.

These are the samplers of most requests. Their chain takes longer to be called than to choose among 40 candidates, so
numpy applies them to the rows of one decode together. The arithmetic is that of llama_sampler_top_p_apply,
_min_p_apply, _temp_impl and _dist_apply, in the same order and precision and with the same random numbers, so that a
seed gives the tokens that the chain gives. Only where two logits are equal may another one come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.generator import DrawGenerator
from mullama.engines.llamacpp.sampling.top_rows import Best, Indexes, top

MOST_CANDIDATES = 512


class TopDraw:
    """The settings and the random numbers of one request."""

    def __init__(
        self,
        *,
        k: int,
        p: float,
        log_ratio: float,
        keep: int,
        temperature: float,
        seed: int,
    ) -> None:
        """log_ratio: of min-p; -inf for no cut. p: of top-p; 1 for no cut."""
        self.k = k
        self.settings = (k, keep, p, log_ratio, temperature)
        self._seed = seed

    @cached_property
    def generator(self) -> DrawGenerator:
        return DrawGenerator(self._seed)


def draw_together(
    draws: Sequence[TopDraw], rows: Sequence[int], masks: Sequence[bytes | None], logits: Floats
) -> tuple[list[int], Best]:
    """Return a token for each request, and the candidates from which they were drawn.

    rows: of the logits, increasing, one for each request. masks: the allowed tokens of each, one bit each, lowest
    first; None for all.
    """
    most = max(draw.k for draw in draws)
    ids, best = top(logits, rows, masks, most).best(most)
    chosen = _draw(best, draws)
    tokens: list[int] = ids[np.arange(len(draws)), chosen].tolist()
    return tokens, (ids, best)


@lru_cache(maxsize=2)  # most decodes have the requests of the one before
def _settings(draws: tuple[TopDraw, ...]) -> tuple[Indexes, Indexes, Floats, Floats, Floats]:
    """Return each setting as a column with a row for each request."""
    columns = np.array([draw.settings for draw in draws]).T[:, :, None]
    p, log_ratio, temperature = columns[2:].astype(np.float32)
    return columns[0].astype(np.intp), columns[1].astype(np.intp), p, log_ratio, temperature


@np.errstate(invalid="ignore")  # logits that are no numbers draw any token
def _draw(best: Floats, draws: Sequence[TopDraw]) -> Indexes:
    """Return the column of each row that is drawn. best: the largest logits of each row, best first."""
    k, keep, p, log_ratio, temperature = _settings(tuple(draws))
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
