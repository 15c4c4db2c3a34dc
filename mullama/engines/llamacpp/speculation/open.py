"""Opens the speculation of a context."""

from __future__ import annotations

from collections.abc import Callable

from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.decode_cost import DecodeCost
from mullama.engines.llamacpp.speculation.ngram import NgramDrafter
from mullama.engines.llamacpp.speculation.rollback import Rollback
from mullama.engines.llamacpp.speculation.speculator import Speculator


def open_speculator(
    options: ContextOptions, rollback: Rollback, *, cost: DecodeCost, rows: int, clock: Callable[[], float]
) -> Speculator | None:
    """Return the guesses of a context, None without `draft`. rows: of logits, for guesses of all requests."""
    if options.draft is None:
        return None
    return Speculator(NgramDrafter(), options.draft, rollback, cost=cost, rows=rows, clock=clock)
