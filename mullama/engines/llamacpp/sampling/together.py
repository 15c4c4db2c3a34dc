"""Chooses the tokens of all requests of one decode: those with the usual samplers together, the others one by one."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.sampler import Sampler
from mullama.engines.llamacpp.sampling.top_draw import draw_together
from mullama.engines.llamacpp.sampling.top_rows import likeliest


def choose_together(
    samplers: Sequence[Sampler], rows: Sequence[int], masks: Sequence[bytes | None], logits: Floats
) -> list[int]:
    """Return the next token of each request: the one that `Sampler.choose` returns.

    rows: of the logits, increasing, one for each sampler. masks: the allowed tokens of each, one bit each, lowest
    first; None for all.
    """
    chosen = [-1] * len(samplers)
    greedy = [index for index, sampler in enumerate(samplers) if sampler.lowered is not None]
    if greedy:
        found = likeliest(logits, [rows[index] for index in greedy], [masks[index] for index in greedy])
        for index, token in zip(greedy, found, strict=True):
            if token not in samplers[index].lowered:  # type: ignore[operator]
                chosen[index] = token
    drawing = [(index, sampler.top_draw) for index, sampler in enumerate(samplers) if sampler.top_draw is not None]
    if drawing:
        indexes = [index for index, _ in drawing]
        draws = [draw for _, draw in drawing]
        found = draw_together(draws, [rows[index] for index in indexes], [masks[index] for index in indexes], logits)
        for index, token in zip(indexes, found, strict=True):
            chosen[index] = token
    for index, token in enumerate(chosen):
        if token < 0:
            chosen[index] = samplers[index].choose(logits[rows[index]], masks[index])
    return chosen
