"""A running completion whose prompt has media."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mullama.engines.llamacpp.batcher import PendingTokens
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.media.runs import MediaJob, PlacedRun, texts_of
from mullama.struct import replace


class MediaCompletion(RunningCompletion):
    """Text up to the next run is decoded with that of other requests, and a run in decodes of its own."""

    def __init__(self, job: MediaJob, prompt: list[int], *arguments: Any, **settings: Any) -> None:
        self.runs = job.runs
        self.done = 0  # vectors of the next run that are in memory; `computed` counts whole runs
        super().__init__(job, prompt, *arguments, **settings)

    @property
    def next_run(self) -> PlacedRun | None:
        """The run that is next to be decoded, None while text is."""
        return next((placed for placed in self.runs if placed.start == self.computed), None)

    @property
    def left_to_decode(self) -> int:
        """As of `RunningCompletion`, in cells."""
        return super().left_to_decode + sum(placed.extra for placed in self.runs if placed.start >= self.computed)

    def pending_tokens(self, first: float) -> PendingTokens:
        """Return the text up to the next run, which needs no logits."""
        pending = super().pending_tokens(first)
        ahead = next((placed.start for placed in self.runs if placed.start >= self.computed), None)
        return pending if ahead is None else replace(pending, tokens=ahead - self.computed, rows=0)

    def _cells(self, length: int) -> int:
        return length + sum(placed.extra for placed in self.runs if placed.end <= length)

    def _texts(self, tokens: Sequence[int]) -> Sequence[int]:
        return texts_of(tokens)
