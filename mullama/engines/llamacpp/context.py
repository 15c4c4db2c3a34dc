"""One context over loaded weights: its requests, its cells, and one decode at a time for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any

from mullama.engines.base import MOMENT, ContextOptions, Ended, Failed, Output, Prefilled
from mullama.engines.llamacpp.batcher import Pace, Slice, plan
from mullama.engines.llamacpp.binding.context import ABORTED, NO_CELLS, NativeBatch, NativeContext
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import Copy, common_length
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.engines.llamacpp.cache.warmup import KEY, PrefixWork, Warmth
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.sampling.prompt_lookup import PromptLookup
from mullama.errors import EngineFailed, Kind, MullamaError

_PATIENCE = 0.02  # seconds to wait for a grammar when there is nothing else to do
_DRAFT_ROWS = 9  # logits per request and step with guesses


@dataclass(slots=True, eq=False)
class Counters:
    """Sums since the engine was loaded."""

    steps: int = 0
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True, eq=False)
class Queued:
    """A job that has no sequence yet; `ready` makes the generation once its grammar is compiled."""

    id: int
    prompt: list[int]
    cache: bool
    ready: Callable[[], RunningCompletion]
    submitted: float = 0.0
    new: int = 0  # tokens of the prompt that were not in memory when it came
    grammar: Future[Any] | None = None
    cancelled: bool = False


def rows_wanted(options: ContextOptions) -> int:
    """Rows of logits that one decode may ask for."""
    each = _DRAFT_ROWS if options.draft else 1
    return max(options.parallel * each, 32)


class TextContext:
    """Continuous batching over one llama.cpp context."""

    def __init__(
        self,
        native: NativeContext,
        cache: Cells,
        files: PrefixFiles | None,
        options: ContextOptions,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self.native = native
        self.cache = cache
        self.options = options
        self._counters = counters
        self._clock = clock
        self._rows = rows_wanted(options)
        self._batch = NativeBatch(native.batch_size)
        self._pace = Pace()
        self._queue: list[Queued] = []
        self._running: dict[int, RunningCompletion] = {}
        self._lookups: dict[int, PromptLookup] = {}
        self.warmth = Warmth(native, cache, files, self._apply)
        self._interruptible = False
        self._young = 0.0  # when the decode that runs will be too old to be given up for another prompt
        self._aborted = False
        self._steady = math.inf  # seconds of the last decode, if it was of answers alone

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._running) or not self.warmth.complete

    @property
    def brisk(self) -> bool:
        """Whether the next step goes on with answers as the last one did, in less than a `MOMENT`."""
        answering = bool(self._running) and all(g.running for g in self._running.values())
        return answering and not self._queue and self._steady < MOMENT

    @property
    def gathering(self) -> float:
        """Seconds for which prompts that have just come may still wait for others of the same burst.

        A prompt alone does not wait: what it begins is given up when another comes soon, see `expect`.
        """
        begun = self._running.values()
        if not self._queue or not self._has_place or len(self._queue) + len(begun) < 2 or any(g.running for g in begun):
            return 0.0
        left = sum(queued.new for queued in self._queue) + sum(g.left_to_decode for g in begun)
        last, longest = self._queue[-1].submitted, self._queue[0].submitted + MOMENT
        return min(last + self._pace.worth_waiting(left), longest) - self._clock()

    @property
    def _has_place(self) -> bool:
        return len(self._running) + len(self._queue) < self.options.parallel

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def submit(self, queued: Queued) -> None:
        queued.submitted = self._clock()
        held = self.cache.match(queued.prompt[:-1])[1] if queued.cache else 0
        queued.new = len(queued.prompt) - held
        self._queue.append(queued)

    def cancel(self, id: int) -> None:
        for item in self._jobs():
            if item.id == id:
                item.cancelled = True

    def interrupt(self) -> None:
        """From any thread: end a decode that computes prompts; never two in a row, so that work goes on."""
        if self._interruptible:
            self.native.stop_decode()

    def expect(self) -> None:
        """From any thread: another prompt is coming. A decode of prompts that has just begun is given up for it."""
        if self._interruptible and self._clock() < self._young and self._has_place:
            self.native.stop_decode()

    def step(self) -> list[Output]:
        """Admit what can be admitted, decode once, and say what came of it."""
        said = self._drop_cancelled()
        said += self._admit()
        if not self._running:
            self.warmth.start()
        slices = self._plan()
        return said + self._decode(slices) if slices else said

    def wait(self) -> None:
        """Nothing can be decoded: wait a moment for a grammar that is being compiled."""
        grammars = [q.grammar for q in self._queue if q.grammar and not q.grammar.done()]
        if grammars:
            wait_for(grammars, timeout=_PATIENCE, return_when="FIRST_COMPLETED")

    def abandon(self) -> list[Output]:
        """End everything that runs or waits."""
        for item in self._jobs():
            item.cancelled = True
        return self._drop_cancelled()

    def _jobs(self) -> list[Queued | RunningCompletion]:
        return [*self._queue, *self._running.values()]

    def forget(self, files: PrefixFiles | None) -> None:
        """What is in memory must not be shared any more; declared beginnings are computed again."""
        self.warmth.restart(files)
        for generation in self._running.values():
            generation.keep = False
        self._apply(self.cache.make_room(self.cache.cells))

    def close(self) -> None:
        for generation in self._running.values():
            generation.close()
        self._running.clear()
        self._queue.clear()
        self.native.close()

    def _drop_cancelled(self) -> list[Output]:
        said: list[Output] = []
        for queued in [q for q in self._queue if q.cancelled]:
            self._queue.remove(queued)
            said.append(Ended(id=queued.id, reason="cancelled", prompt_tokens=len(queued.prompt)))
        for generation in [g for g in self._running.values() if g.cancelled]:
            generation.reason = "cancelled"
            said += self._finish(generation)
        return said

    def _admit(self) -> list[Output]:
        """Give sequences to waiting jobs, in the order of their arrival."""
        said: list[Output] = []
        for queued in list(self._queue):
            if len(self._running) >= self.options.parallel:
                break
            if not self._may_begin(queued):
                continue
            said += self._begin(queued)
        return said

    def _may_begin(self, queued: Queued) -> bool:
        """Not before its grammar is compiled, nor while another job computes the same beginning."""
        if queued.grammar is not None and not queued.grammar.done():
            return False
        if not (queued.cache and self.cache.cuttable):
            return True
        _, held = self.cache.match(queued.prompt[:-1])
        return not any(
            common_length(other.prompt, queued.prompt[:-1]) >= held + self.cache.worth_waiting
            and other.computed < len(other.prompt) - 1
            for other in self._computing()
        )

    def _computing(self) -> list[RunningCompletion | PrefixWork]:
        """Whose prompts are being computed now."""
        prompts: list[RunningCompletion | PrefixWork] = [
            g for g in self._running.values() if not g.running and not g.cancelled
        ]
        return [self.warmth.work, *prompts] if self.warmth.work else prompts

    def _begin(self, queued: Queued) -> list[Output]:
        try:
            generation = queued.ready()
        except MullamaError as error:
            self._queue.remove(queued)
            return [failed(queued.id, error)]
        share = queued.cache and not generation.each
        placement = self.cache.place(queued.prompt, share=share)
        if placement is None:
            generation.close()
            return []
        self._queue.remove(queued)
        self._apply(placement.operations)
        self._running[queued.id] = generation
        if self.options.draft == "prompt_lookup":
            self._lookups[queued.id] = PromptLookup()
        self._counters.cached_tokens += placement.cached
        generation.submitted = queued.submitted
        return [generation.begin(placement.sequence, placement.cached, self._clock())]

    def _plan(self) -> tuple[Slice, ...]:
        room = self._batch.room
        self._guess(room)
        begun = min((g.first for g in self._running.values() if g.running), default=math.inf)
        wanted = [g.waiting(begun) for g in self._running.values()]
        if self.warmth.work:
            wanted.append(self.warmth.work.waiting(late=begun < math.inf))
        return plan(wanted, room=room, rows=self._rows, prompt_room=self._pace.prompt_room(room))

    def _guess(self, room: int) -> None:
        """Add guesses where all of them are sure to fit into this step."""
        if not self._lookups:
            return
        rows = self._rows - len(self._running)
        pending = sum(g.left_to_decode for g in self._running.values() if g.running)
        for id, lookup in self._lookups.items():
            generation = self._running[id]
            most = min(rows, room - pending, _DRAFT_ROWS - 1, generation.left - 1)
            if generation.running and most > 0:
                generation.draft = lookup.guess(generation.tokens, most)
                rows -= len(generation.draft)
                pending += len(generation.draft)

    def _decode(self, slices: Sequence[Slice]) -> list[Output]:
        parts = [(self._running[s.key], s) for s in slices if s.key != KEY]
        parts.sort(key=lambda part: part[0].sequence)  # llama.cpp computes slots together only in this order
        warming = next((s.count for s in slices if s.key == KEY), 0)
        answering = not warming and all(g.running and s.count == 1 for g, s in parts)
        if answering and self._pace.singly(len(parts)):
            return [output for part in parts for output in self._decode_together([part], 0)]
        return self._decode_together(parts, warming)

    def _decode_together(self, parts: Sequence[tuple[RunningCompletion, Slice]], warming: int) -> list[Output]:
        self._fill(parts, warming)
        started = self._clock()
        computing = warming or any(not g.running for g, _ in parts)
        alone = self.cache.cuttable and not warming and not any(g.running for g, _ in parts)
        self._young = started + self._pace.worth_repeating(self._batch.count) if alone else 0.0
        self._interruptible = bool(computing and not self._aborted)
        try:
            status = self.native.decode(self._batch)
        except EngineFailed as error:
            return self._give_up(parts, error)
        finally:
            self._interruptible = False
        self._aborted = status == ABORTED
        now = self._clock()
        self._counters.steps += 1
        self._counters.decode_seconds += now - started
        if status == ABORTED:
            self._undo(parts)
            return []
        if status == NO_CELLS:
            return self._shed(parts)
        answering = sum(s.count for g, s in parts if g.running)
        self._pace.observe(running=answering, prompt=self._batch.count - answering, seconds=now - started)
        self._steady = now - started if answering == self._batch.count else math.inf
        if warming:
            self.warmth.advance(warming)
        return self._advance(parts, now)

    def _fill(self, parts: Iterable[tuple[RunningCompletion, Slice]], warming: int) -> None:
        self._batch.clear()
        self._apply(self.cache.make_room(warming + sum(s.count for _, s in parts)))
        if work := self.warmth.work:
            self._batch.add(work.sequence, work.computed, work.pending(warming), 0)
        for generation, part in parts:
            tokens = generation.pending(part.count)
            self._batch.add(generation.sequence, generation.computed, tokens, part.rows)

    def _advance(self, parts: Iterable[tuple[RunningCompletion, Slice]], now: float) -> list[Output]:
        """Record what was computed, and let every request choose its next token."""
        said: list[Output] = []
        rows = sum(part.rows for _, part in parts)
        logits = self.native.logits(rows) if rows else None
        row = 0
        for generation, part in parts:
            tokens = generation.pending(part.count)
            self.cache.extend(generation.sequence, tokens)
            mine = logits[row : row + part.rows] if logits is not None else ()
            row += part.rows
            try:
                said += self._answer(generation, part, mine, now)
            except MullamaError as error:
                said += self._fail(generation, error)
        return said

    def _answer(self, generation: RunningCompletion, part: Slice, rows: Any, now: float) -> list[Output]:
        before = generation.computed
        answered = generation.completion
        was_running = generation.running
        generation.decoded(part.count, rows, now)
        if generation.computed < before + part.count:
            self._forget(generation)
        self._counters.completion_tokens += generation.completion - answered
        if not was_running:
            self._counters.prompt_tokens += min(before + part.count, len(generation.prompt)) - before
            self.warmth.seen(generation.prompt, generation.computed)
        if generation.over:
            return self._finish(generation)
        said = generation.outputs(now)
        if not was_running and not part.last:
            total = len(generation.prompt)
            said.append(Prefilled(id=generation.id, done=generation.computed, total=total))
        return said

    def _finish(self, generation: RunningCompletion) -> list[Output]:
        said = generation.outputs(self._clock())
        self._leave(generation, keep=generation.keep)
        return said

    def _fail(self, generation: RunningCompletion, error: MullamaError) -> list[Output]:
        self._leave(generation, keep=False)
        return [failed(generation.id, error)]

    def _leave(self, generation: RunningCompletion, *, keep: bool) -> None:
        del self._running[generation.id]
        self._lookups.pop(generation.id, None)
        self._apply(self.cache.release(generation.sequence, keep=keep))
        generation.close()

    def _forget(self, generation: RunningCompletion) -> None:
        """Take back what was decoded of wrong guesses."""
        self.cache.cut(generation.sequence, generation.computed)
        self.native.cut(generation.sequence, generation.computed)

    def _undo(self, parts: Iterable[tuple[RunningCompletion, Slice]]) -> None:
        """After an abort: whatever of this batch reached the cells is taken back, to be decoded again."""
        self.native.allow_decode()
        if (work := self.warmth.work) and not self.native.cut(work.sequence, work.computed):
            self._restart(work)
        for generation, _ in parts:
            generation.draft = []
            if not self.native.cut(generation.sequence, generation.computed):
                self._restart(generation)

    def _restart(self, generation: RunningCompletion | PrefixWork) -> None:
        """Where memory cannot be cut, the whole sequence is computed again."""
        self.cache.cut(generation.sequence, 0)
        self.native.cut(generation.sequence, 0)
        generation.computed = 0

    def _shed(self, parts: Sequence[tuple[RunningCompletion, Slice]]) -> list[Output]:
        """No cells although the account said there were: forget what is idle, else end the youngest."""
        freed = self.cache.make_room(self.cache.cells)
        if freed:
            self._apply(freed)
            return []
        error = EngineFailed("the context has no cell left", retry_after=1.0)
        return self._give_up(parts[-1:], error)

    def _give_up(self, parts: Sequence[tuple[RunningCompletion, Slice]], error: EngineFailed) -> list[Output]:
        """The decode of these requests, or of a declared beginning alone, cannot be done."""
        if not parts:
            self.warmth.give_up()
        return [output for generation, _ in parts for output in self._fail(generation, error)]

    def _apply(self, operations: Iterable[Any]) -> None:
        for operation in operations:
            if isinstance(operation, Copy):
                self.native.copy(operation.source, operation.target, operation.length)
            else:
                self.native.cut(operation.sequence, operation.length)


def failed(id: int, error: MullamaError) -> Failed:
    """An error as an engine reports it."""
    names = ("prompt_tokens", "context_size")
    numbers = tuple((n, v) for n in names if (v := getattr(error, n, None)) is not None)
    kind: Kind = error.kind
    return Failed(id=id, kind=kind, message=error.message, hint=error.hint, numbers=numbers)
