"""The next token of every request of one decode, chosen together where that gives what each would choose alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.sampling.sampler import Sampler
from mullama.engines.llamacpp.sampling.together import choose_together
from mullama.engines.llamacpp.sampling.top_rows import log_probabilities
from mullama.struct import Struct

LogProbabilities = tuple[float, list[tuple[int, float]]]


class ChosenToken(Struct, frozen=True):
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
    tokens = choose_together([chooser.sampler for chooser in choosers], rows, masks, logits)
    choices = list(map(ChosenToken, tokens))
    reporting = [index for index, chooser in enumerate(choosers) if chooser.alternatives is not None]
    if reporting:
        most = max(choosers[index].alternatives or 0 for index in reporting)
        found = log_probabilities(logits, [rows[i] for i in reporting], [tokens[i] for i in reporting], most)
        for index, (own, best) in zip(reporting, found, strict=True):
            choices[index] = ChosenToken(tokens[index], (own, best[: choosers[index].alternatives]))
    return choices
