"""A context with a projector: decodes of text and of media take turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mullama.engines.base import Output
from mullama.engines.llamacpp.batcher import Slice
from mullama.engines.llamacpp.binding.context import ABORTED, NO_CELLS
from mullama.engines.llamacpp.binding.vectors import VectorBatch, positions_at
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.context import Queued, TextContext
from mullama.engines.llamacpp.media.completion import MediaCompletion
from mullama.engines.llamacpp.media.runs import PlacedRun
from mullama.engines.llamacpp.pool import CellPool
from mullama.engines.llamacpp.pool_policy import to_set_aside
from mullama.errors import EngineFailed, Invalid


class MediaContext(TextContext):
    """A llama.cpp batch has tokens or vectors, never both, so a run of vectors is never part of a decode of text.

    After each decode of a run, text has its turn: the text of other requests waits for one such decode at most, and
    while any is written, that decode has no more vectors than a late prompt would have tokens.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._text_is_next = True

    def step(self) -> list[Output]:
        completion = None if self._text_is_next else self._at_run()
        self._text_is_next = completion is not None
        if completion is None:
            return super().step()
        # The tokens of the last decode of text are chosen and sent before memory changes.
        outputs = self._finish_decode() + self._write() + self._drop_cancelled()
        placed = completion.next_run if completion.id in self._running else None
        return outputs if placed is None else outputs + self._decode_run(completion, placed)

    def _begin(self, queued: Queued) -> list[Output]:
        outputs = super()._begin(queued)
        completion = self._running.get(queued.id)
        if isinstance(completion, MediaCompletion):
            # Memory that cannot be cut continues from states alone, and the next question is about the same media.
            self._states.stop_at(completion.sequence, completion.runs[-1].end)
        return outputs

    def _at_run(self) -> MediaCompletion | None:
        """Return the oldest request whose next decode is of a run, among those with the current adapters."""
        scales = None if self._turns is None else self._turns.current
        for completion in self._running.values():
            turn = scales is None or completion.scales == scales
            if turn and isinstance(completion, MediaCompletion) and completion.next_run is not None:
                return completion
        return None

    def _decode_run(self, completion: MediaCompletion, placed: PlacedRun) -> list[Output]:
        run, done = placed.run, completion.done
        if run.whole and run.tokens > self.native.ubatch_size:
            size = self.native.ubatch_size
            return self._fail(completion, Invalid(
                f"an image of this model needs {run.tokens} tokens in one micro-batch, and context.ubatch is {size}",
                hint=f"set context.ubatch and context.batch of the model to {run.tokens} or more",
            ))  # fmt: skip
        outputs: list[Output] = []
        if self.pool and not self._make_room(self.pool, completion, run.tokens):
            return outputs
        self._apply(self.cache.make_room(run.tokens))  # the account has none of it before the last vector
        count = run.tokens if run.whole else min(run.tokens - done, self._most_vectors())
        positions = positions_at(placed.start, run.tokens, run.place)[:, done : done + count]
        batch = VectorBatch(completion.sequence, run.vectors[done : done + count], positions)
        started = self._clock()
        try:
            status = self._decode_vectors(batch, causal=not run.whole)
        except EngineFailed as error:
            return outputs + self._fail(completion, error)
        if status == NO_CELLS:
            return outputs + self._free_cells([(completion, completion.next_token)])
        if status == ABORTED:
            completion.done = 0
            self._undo([(completion, completion.next_token)])
            return outputs
        self._pace.observe(running=0, prompt=count, seconds=self._measure(started, 1) - started)
        self._answer_seconds = math.inf
        completion.done += count
        if completion.done == run.tokens:
            outputs += self._end_run(completion, placed)
        return outputs

    def _decode_vectors(self, batch: VectorBatch, *, causal: bool) -> int:
        if causal:
            return self.native.decode(batch)
        self.native.set_causal(False)
        try:
            return self.native.decode(batch)
        finally:
            self.native.synchronize()  # the flag is read while the decode is planned, and a GPU plans ahead
            self.native.set_causal(True)

    def _most_vectors(self) -> int:
        """Return the vectors of one decode, which must not stall the text of others."""
        answering = any(c.running for c in self._running.values())
        return self._pace.prompt_room(self._batch.room) if answering else self._batch.room

    def _end_run(self, completion: MediaCompletion, placed: PlacedRun) -> list[Output]:
        """Record a run whose vectors are all in memory: now, and never in part, other prompts can share it."""
        completion.done = 0
        self.cache.extend(completion.sequence, placed.run.numbers)
        completion.computed = placed.end
        self._counters.prompt_tokens += placed.run.tokens
        self._states.computed(completion.sequence, completion.prompt, completion.computed)
        self.prefixes.adopt_computed(completion.prompt, completion.computed, completion.scales)
        return [] if completion.first else [completion.prefilled(self._clock())]

    def _fill(self, parts: Sequence[tuple[RunningCompletion, Slice]], warming: int, *, continuing: bool) -> None:
        if partial := sum(c.done for c in self._running.values() if isinstance(c, MediaCompletion)):
            self._apply(self.cache.make_room(partial + warming + sum(part.count for _, part in parts)))
        super()._fill(parts, warming, continuing=continuing)

    def _make_room(self, pool: CellPool, completion: MediaCompletion, cells: int) -> bool:
        """Set the youngest requests aside until so many cells can be freed; return False if this one is among them."""
        while cells > self.cache.cells - self.cache.held:
            if self.prefixes.work:
                self.prefixes.stop()
            elif (victim := to_set_aside(list(self._running))) is not None:
                self._set_aside(pool, self._running[victim])
                if victim == completion.id:
                    return False
            else:
                break
        return True

    def _gain(self, prompt: Sequence[int], held: int, common: int) -> int:
        return self.cache.cells_of(prompt[held:common])

    def _set_aside(self, pool: CellPool, completion: RunningCompletion) -> None:
        self._drop_part(completion)
        super()._set_aside(pool, completion)

    def _release(self, completion: RunningCompletion, *, keep: bool) -> None:
        self._drop_part(completion)
        super()._release(completion, keep=keep)

    def _remember(self, completion: RunningCompletion) -> None:
        """Keep no file of a conversation with media: the numbers of runs mean nothing in another process."""
        if not isinstance(completion, MediaCompletion):
            super()._remember(completion)

    def _lose(self, *sequences: int) -> None:
        super()._lose(*sequences)
        for completion in self._running.values():
            if isinstance(completion, MediaCompletion) and completion.sequence in sequences:
                completion.done = 0

    def _drop_part(self, completion: RunningCompletion) -> None:
        """Remove the vectors of a run that is in memory in part: the account of memory does not have them."""
        if isinstance(completion, MediaCompletion) and completion.done:
            completion.done = 0
            if not self._cut(completion):
                self._rewind(completion)
