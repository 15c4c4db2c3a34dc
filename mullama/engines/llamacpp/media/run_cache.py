"""The account of a memory that holds runs of media, which may have more cells than positions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mullama.engines.llamacpp.cache.prefix_tree import PrefixCache
from mullama.engines.llamacpp.media.runs import Numbers


class RunCache(PrefixCache):
    """Counts cells by the numbers of runs. Text alone is counted by its length, at every token."""

    def __init__(self, numbers: Numbers, **settings: Any) -> None:
        self.cells_of = numbers.cells_of
        super().__init__(**settings)

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        super().extend(sequence, tokens)
        if len(tokens) > 1:  # a run has more than one position where it has more cells
            self.used += self.cells_of(tokens) - len(tokens)
