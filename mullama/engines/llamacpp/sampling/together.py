"""Chooses the tokens of all requests of one decode: those with the usual samplers together, the others one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.edits import LogitEdits, edited
from mullama.engines.llamacpp.sampling.top_draw import TopDraw, draw_together
from mullama.engines.llamacpp.sampling.top_rows import Best, likeliest
from mullama.struct import Struct


class UsualSampler(Protocol):
    """The sampler of one request.

    - `takes_likeliest`: the largest logit is chosen.
    - `top_draw`: a token is drawn from the largest logits.
    - `edits`: changes to the logits before either, None for none.
    """

    takes_likeliest: bool
    top_draw: TopDraw | None
    edits: LogitEdits | None

    def choose_alone(self, row: Floats, allowed: bytes | None) -> int:
        """Return the next token where it is neither."""
        ...


class Drawn(Struct, frozen=True):
    """The candidates of the requests whose tokens were drawn together."""

    indexes: Sequence[int]
    """The request of each row of `best`, increasing."""
    best: Best
    """As the edits and the mask of the request leave them."""


def choose_together(
    samplers: Sequence[UsualSampler], rows: Sequence[int], masks: Sequence[bytes | None], logits: Floats
) -> tuple[list[int], Drawn | None]:
    """Return the next token of each request, and the candidates of those that were drawn together.

    rows: of the logits, increasing, one for each sampler. masks: the allowed tokens of each, one bit each, lowest
    first; None for all. The logits are changed and restored.
    """
    chosen = [-1] * len(samplers)
    drawn: Drawn | None = None
    greedy = [index for index, sampler in enumerate(samplers) if sampler.takes_likeliest]
    drawing = {index: sampler.top_draw for index, sampler in enumerate(samplers) if sampler.top_draw is not None}
    if greedy:
        found = likeliest(logits, [rows[index] for index in greedy], [masks[index] for index in greedy])
        left = []
        for index, token in zip(greedy, found, strict=True):
            edits = samplers[index].edits
            if edits is None or edits.spares(token):
                chosen[index] = token
            else:
                left.append(index)
        greedy = left
    rest = [*greedy, *drawing]
    with edited([samplers[index].edits for index in rest], [rows[index] for index in rest], logits):
        if greedy:
            found = likeliest(logits, [rows[index] for index in greedy], [masks[index] for index in greedy])
            for index, token in zip(greedy, found, strict=True):
                chosen[index] = token
        if drawing:
            lines, bound = [rows[index] for index in drawing], [masks[index] for index in drawing]
            found, best = draw_together(list(drawing.values()), lines, bound, logits)
            drawn = Drawn(list(drawing), best)
            for index, token in zip(drawing, found, strict=True):
                chosen[index] = token
    for index, token in enumerate(chosen):
        mask = masks[index]
        if token < 0:
            chosen[index] = samplers[index].choose_alone(logits[rows[index]], mask)
        elif mask is not None and not mask[token >> 3] >> (token & 7) & 1:
            # The biases forbid all that the grammar allows: the grammar decides.
            [chosen[index]] = likeliest(logits, [rows[index]], [mask])
    return chosen, drawn
