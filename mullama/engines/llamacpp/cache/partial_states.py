"""Takes the checkpoints of prompts while they are computed. For memory that can be cut it has nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mullama.engines.llamacpp.batcher import PendingTokens
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.checkpoints import Checkpoint, spacing, stops
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.struct import replace


class PartialStates:
    """The prompts that are being computed in one context, and where each stops for its next checkpoint.

    ends: the tokens that end a message. token_seconds: returns the time to compute one token of a prompt, if known.
    """

    def __init__(
        self,
        native: NativeContext,
        cache: Cells,
        *,
        longest: int,
        ends: Collection[int],
        token_seconds: Callable[[], float | None],
    ) -> None:
        self._native = native
        self._cache = cache
        self._longest = longest
        self._ends = ends
        self._token_seconds = token_seconds
        self._stops: dict[int, list[int]] = {}  # by sequence, increasing
        self._last: dict[int, int] = {}  # tokens at the last checkpoint of each sequence

    def begin(self, sequence: int, prompt: Sequence[int], cached: int, declared: Collection[int]) -> None:
        """Start with a prompt, of which `cached` tokens are in memory. declared: lengths of its declared prefixes."""
        if not self._cache.cuttable:
            self._stops[sequence] = stops(prompt, cached, self._ends, declared)
            self._last[sequence] = cached

    def end(self, sequence: int, *, keep: bool) -> None:
        """End a request. `keep` its last state, where a state is all that a prompt needs to continue."""
        if self._stops.pop(sequence, None) is not None and keep and self._cache.cellless:
            self._take(sequence, self._cache.tokens(sequence))
        self._last.pop(sequence, None)

    def copy(self, source: int, target: int, length: int) -> bool:
        """Share the first `length` tokens of a sequence; return False if the memory of either is lost.

        llama.cpp reuses a cell of a sliding window once it is outside the window of its only sequence, so shared cells
        must be inside. A state that is saved and restored has no others.
        """
        native, window = self._native, self._native.model.window
        whole = native.last_position(source) == length - 1
        if window and whole and not self._drop_outgrown(source, length):
            return False
        native.copy(source, target, length)
        if window and not whole and native.complete(target, length):
            return self._drop_outgrown(target, length)
        return True  # otherwise a checkpoint replaces the window

    def _drop_outgrown(self, sequence: int, length: int) -> bool:
        """Drop the cells of a sequence that are outside its window; return False if its memory is lost."""
        native = self._native
        if native.first_position(sequence) >= length - native.model.window:
            return True
        return native.restore(sequence, native.save(sequence, partial=True), partial=True)

    def restore(self, sequence: int, checkpoint: Checkpoint) -> bool:
        """Return False if llama.cpp does not take the state."""
        taken = self._native.restore(sequence, checkpoint.state, partial=True)
        self._cache.checkpoints.restored += taken
        return taken and self._native.complete(sequence, checkpoint.length)

    def stop_at(self, sequence: int, length: int) -> None:
        """Take a checkpoint at this length too: another prompt has these tokens in common."""
        stops = self._stops.get(sequence)
        if stops is not None and length not in stops:
            stops.append(length)
            stops.sort()

    def until_stop(self, sequence: int, computed: int, pending: PendingTokens) -> PendingTokens:
        """Return the pending tokens of a prompt up to its next stop; tokens before a stop need no logits."""
        ahead = next((n for n in self._stops.get(sequence, ()) if n > computed), None)
        if ahead is None or pending.all_logits or computed + pending.tokens <= ahead:
            return pending
        return replace(pending, tokens=ahead - computed, rows=0)

    def computed(self, sequence: int, prompt: Sequence[int], length: int) -> None:
        """Take a checkpoint if one is due: `length` tokens of the prompt are in memory, and no more."""
        checkpoints = self._cache.checkpoints
        if sequence not in self._stops or length > len(prompt):
            return
        if length not in self._stops[sequence]:
            step = spacing(checkpoints.largest, checkpoints.most_bytes, self._longest, self._token_seconds())
            if length - self._last[sequence] < step:
                return
        self._take(sequence, list(prompt[:length]))
        self._last[sequence] = length

    def _take(self, sequence: int, tokens: list[int]) -> None:
        checkpoints, scales = self._cache.checkpoints, self._cache.scales(sequence)
        if checkpoints.wants(sequence, tokens, self._native.state_size(sequence, partial=True), scales):
            checkpoints.add(sequence, tokens, self._native.save(sequence, partial=True), scales)
