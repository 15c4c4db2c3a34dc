"""The next token of every request of one decode, chosen together where that gives what each would choose alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.sampler import Sampler
from mullama.engines.llamacpp.sampling.together import Drawn, choose_together
from mullama.engines.llamacpp.sampling.top_rows import Best, best_of_all, log_probabilities
from mullama.struct import Struct

LogProbabilities = tuple[float, list[tuple[int, float]]]


class ChosenToken(Struct, frozen=True, gc=False):
    """The token of the first row of logits of a request."""

    token: int
    log_probabilities: LogProbabilities | None = None
    """As of `candidates.log_probabilities`, if the request reports them."""
    error: Exception | None = None
    """In place of a token: the reason that none can be chosen."""


class Chooser(Protocol):
    """A request that needs one token."""

    id: int
    sampler: Sampler

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives that are reported with the probability of the token; None to report nothing."""
        ...

    def mask(self) -> bytes | None:
        """Return the allowed tokens, one bit each, lowest first; None for all."""
        ...


def first_choices(choosers: Sequence[Chooser], rows: Sequence[int], logits: Floats) -> list[ChosenToken]:
    """Return a choice for each of these requests. rows: of the logits, increasing, one for each request."""
    masks: list[bytes | None] = []
    failed: dict[int, ChosenToken] = {}
    for index, chooser in enumerate(choosers):
        try:
            masks.append(chooser.mask())
        except Exception as error:  # noqa: BLE001 - a failure ends its request alone
            failed[index] = ChosenToken(-1, error=error)
    if not failed:
        return _choices(choosers, rows, masks, logits)
    left = [index for index in range(len(choosers)) if index not in failed]
    made = _choices([choosers[index] for index in left], [rows[index] for index in left], masks, logits)
    found = failed | dict(zip(left, made, strict=True))
    return [found[index] for index in range(len(choosers))]


def _choices(
    choosers: Sequence[Chooser], rows: Sequence[int], masks: Sequence[bytes | None], logits: Floats
) -> list[ChosenToken]:
    tokens, drawn = choose_together([chooser.sampler for chooser in choosers], rows, masks, logits)
    choices = list(map(ChosenToken, tokens))
    reporting = [index for index, chooser in enumerate(choosers) if chooser.alternatives is not None]
    if reporting:
        most = max(choosers[index].alternatives or 0 for index in reporting)
        lines, chosen = [rows[i] for i in reporting], [tokens[i] for i in reporting]
        free = not any(masks[i] for i in reporting)
        edits = {edit.forbidden if (edit := choosers[i].sampler.edits) else () for i in reporting}
        known = _best(drawn, reporting, edits, most, lines, logits) if drawn and free and most else None
        found = log_probabilities(logits, lines, chosen, most, known)
        for index, (own, best) in zip(reporting, found, strict=True):
            choices[index] = ChosenToken(tokens[index], (own, best[: choosers[index].alternatives]))
    return choices


def _best(
    drawn: Drawn, reporting: Sequence[int], edits: set[tuple[int, ...] | None], most: int, lines: Sequence[int],
    logits: Floats,
) -> Best | None:  # fmt: skip
    """Return the `most` best candidates of the requests that report them, if a draw has found these.

    edits: the tokens that each of them forbids, None for other changes. lines: their rows of the logits.
    """
    ids, values = drawn.best
    if len(edits) > 1 or None in edits or ids.shape[1] < most or not set(reporting) <= set(drawn.indexes):
        return None
    if len(reporting) < len(drawn.indexes):
        places = {index: at for at, index in enumerate(drawn.indexes)}
        at = [places[index] for index in reporting]
        ids, values = ids[at], values[at]
    ids, values = ids[:, :most], values[:, :most]
    if not (values[:, -1] > -np.inf).all():
        return None
    return best_of_all((ids, values), logits, lines, edits.pop() or ())
