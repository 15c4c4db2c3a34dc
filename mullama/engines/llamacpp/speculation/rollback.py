"""Takes rejected guesses out of memory again, by the kind of memory."""

from __future__ import annotations

from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.engines.llamacpp.completion import RunningCompletion


class Rollback:
    """Removes the last tokens of a sequence.

    Attention keeps each token apart, so the last ones are cut off. In a sliding window this is safe for the tokens of
    one physical batch: llama.cpp reuses only cells that were outside the window before it (`find_slot`). A recurrent
    state keeps no single token, so it is copied to a spare sequence before the decode and copied back; the accepted
    tokens are computed again with the next decode.
    """

    def __init__(self, native: NativeContext, cache: Cells, spares: range) -> None:
        """spares: sequences for states; empty for memory that can be cut."""
        self._native = native
        self._cache = cache
        self._needed = bool(spares)
        self.longest = native.ubatch_size if native.model.window else native.batch_size
        """Tokens of a decode that can be taken back."""
        self._free = list(spares)
        self._spares: dict[int, int] = {}  # by the sequence

    @property
    def room(self) -> bool:
        """True if one more draft can be taken back."""
        return not self._needed or bool(self._free)

    def prepare(self, completion: RunningCompletion) -> None:
        """Make sure that the next decode of a request can be taken back."""
        if self._needed:
            spare = self._spares[completion.sequence] = self._free.pop()
            self._native.copy(completion.sequence, spare, completion.computed)

    def take_back(self, completion: RunningCompletion, before: int) -> None:
        """Remove the tokens that are not accepted, after a decode that began at the position `before`."""
        sequence = completion.sequence
        if self._needed:
            self._native.cut(sequence, 0)
            self._native.copy(self._spares[sequence], sequence, before)
            completion.computed = before
        else:
            self._native.cut(sequence, completion.computed)
        self._cache.cut(sequence, completion.computed)

    def done(self, sequence: int) -> None:
        """Forget the state before the draft."""
        if (spare := self._spares.pop(sequence, None)) is not None:
            self._native.cut(spare, 0)
            self._free.append(spare)
