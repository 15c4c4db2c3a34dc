"""One context over loaded weights: its requests, its cells, and one decode at a time for all of them.

A step admits waiting jobs, plans the tokens of one decode, decodes them, and lets every request choose its next
token. The cache (`self.cache`) is an account of llama.cpp's memory: every change of one is made to the other at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import wait as wait_for
from itertools import accumulate
from typing import Any

from mullama.engines.base import ContextOptions, Ended, Failed, Output
from mullama.engines.llamacpp.adapter_turns import AdapterTurns
from mullama.engines.llamacpp.batcher import Pace, Slice, plan
from mullama.engines.llamacpp.binding.context import ABORTED, DECODED, NO_CELLS, NativeBatch, NativeContext
from mullama.engines.llamacpp.binding.model import NativeAdapter
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.kept_states import KeptStates
from mullama.engines.llamacpp.cache.partial_states import PartialStates
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import Copy, Operation, Restore, Trim, common_length
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.engines.llamacpp.cache.warmup import KEY, DeclaredPrefixes, PrefixWork
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.first_choices import ChosenToken, first_choices
from mullama.engines.llamacpp.overlap import Overlap
from mullama.engines.llamacpp.pool import CellPool
from mullama.engines.llamacpp.pool_policy import to_set_aside
from mullama.engines.llamacpp.sampling.constraint import Compilation
from mullama.engines.llamacpp.speculation.speculator import Speculator
from mullama.engines.observed_use import ObservedUse
from mullama.errors import EngineFailed
from mullama.struct import Struct

_GRAMMAR_WAIT = 0.02  # seconds to wait for a grammar when there is nothing to decode


class Counters(Struct, eq=False):
    """Sums since the engine was loaded."""

    steps: int = 0
    requests: int = 0
    """Sum over the steps of the requests in each."""
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Queued(Struct, eq=False):
    """A job that has no sequence yet."""

    id: int
    prompt: list[int]
    cache: bool
    start: Callable[[], RunningCompletion]  # called once the grammar is compiled
    submitted: float = 0.0
    most: int = 0  # tokens of the answer
    uncached: int = 0  # tokens of the prompt that were not in memory when it was submitted
    grammar: Compilation | None = None
    cancelled: bool = False
    scales: Scales = ()
    owner: str = ""


class _Decode(Struct, frozen=True, kw_only=True):
    """A decode that llama.cpp has accepted."""

    parts: Sequence[tuple[RunningCompletion, Slice]]
    warming: int
    """Tokens of a declared prefix."""
    continuing: bool
    """Every part is the last token of an answer."""
    answering: int
    """Tokens of answers."""
    tokens: int
    started: float
    accepted: float


class TextContext:
    """Continuous batching over one llama.cpp context.

    One thread calls it. `interrupt` and `announce_prompt` may be called from other threads: they read single
    attributes and set the byte that llama.cpp polls during a decode, so they need no lock.
    """

    def __init__(
        self,
        native: NativeContext,
        cache: Cells,
        files: PrefixFiles | None,
        options: ContextOptions,
        counters: Counters,
        clock: Callable[[], float],
        pace: Pace,
        states: PartialStates,
        *,
        rows: int,
        speculator: Speculator | None,
        adapters: Sequence[NativeAdapter] = (),
        kept: KeptStates | None = None,
        pool: bool = False,
        use: ObservedUse | None = None,
    ) -> None:
        """rows: logits of one decode. pool: the cells are fewer than all requests may need."""
        self.native = native
        self._adapters = adapters
        self._kept = kept
        scales = tuple(adapter.scale for adapter in options.adapters)
        self._turns = AdapterTurns(scales) if adapters else None
        self.cache = cache
        self.options = options
        self._counters = counters
        self._clock = clock
        self._rows = rows
        self._batch = NativeBatch(native.batch_size)
        self._pace = pace
        self._states = states
        self._queue: list[Queued] = []
        self._running: dict[int, RunningCompletion] = {}  # oldest first
        self._begun = 0  # requests so far
        self.pool: CellPool | None = None
        if pool:
            self.pool = CellPool(
                native, cache, states, self._apply, size=options.size or native.model.train_context,
                token_seconds=lambda: pace.token_seconds,
            )  # fmt: skip
        self._use = use
        self._speculator = speculator
        self.prefixes = DeclaredPrefixes(native, cache, files, self._apply, scales)
        self._interruptible = False
        self._restart_until = 0.0  # clock time until which an announced prompt restarts the running decode
        self._aborted = False  # the last decode was; the next one is not, so that there is progress
        self._overlap = Overlap()
        self._ahead: _Decode | None = None  # it computes while the text of the one before is written and sent
        self._unwritten: list[RunningCompletion] = []  # requests whose last token has not been reported
        self._unwritten_at = 0.0
        self._answer_seconds = math.inf  # duration of the last decode, if it was of answers alone

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._running or self.aside) or not self.prefixes.complete

    @property
    def next_step_is_fast(self) -> bool:
        """True if the next step continues answers only, as the last one did in less than `COALESCE_SECONDS`."""
        waiting = self._queue and not self._full
        fast = bool(self._running) and not waiting and self._answer_seconds < self._pace.longest
        return fast and all(c.running for c in self._running.values())

    @property
    def batch_delay(self) -> float:
        """Seconds that the prompts of a burst may still wait for others of it.

        A single prompt does not wait: its decode is restarted if another is announced soon, see `announce_prompt`.
        """
        begun = self._running.values()
        if not self._queue or not self._has_room or len(self._queue) + len(begun) < 2 or any(c.running for c in begun):
            return 0.0
        left = sum(queued.uncached for queued in self._queue) + sum(c.left_to_decode for c in begun)
        last, longest = self._queue[-1].submitted, self._queue[0].submitted + self._pace.longest
        return min(last + self._pace.batch_delay(left), longest) - self._clock()

    @property
    def _has_room(self) -> bool:
        return len(self._running) + len(self._queue) < self.options.parallel and not self._full

    @property
    def _full(self) -> bool:
        """True while requests wait for cells."""
        return self.pool is not None and self.pool.full

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def aside(self) -> list[RunningCompletion]:
        """The requests that wait for cells after they began."""
        return self.pool.aside if self.pool else []

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def submit(self, queued: Queued) -> None:
        queued.submitted = self._clock()
        held = self.cache.match(queued.prompt[:-1], queued.scales)[1] if queued.cache else 0
        queued.uncached = len(queued.prompt) - held
        self._queue.append(queued)

    def cancel(self, id: int) -> None:
        for item in self._jobs():
            if item.id == id:
                item.cancelled = True

    def interrupt(self) -> None:
        """Abort a decode that computes prompts; never two in a row, so that there is progress. Thread-safe."""
        if self._interruptible:
            self.native.stop_decode()

    def announce_prompt(self) -> None:
        """Abort a decode of prompts that has just begun, so that the next one includes this prompt. Thread-safe."""
        if self._interruptible and self._clock() < self._restart_until and self._has_room:
            self.native.stop_decode()

    def step(self) -> list[Output]:
        """Admit waiting jobs, decode once, and return the outputs.

        A decode that continues answers may still compute at the return; the next step has its outputs then.
        """
        outputs = self._finish_decode()
        outputs += self._drop_cancelled()
        if self.pool:
            self._resume(self.pool)
        outputs += self._admit()
        if not self._running:
            self.prefixes.start()
        slices = self._plan()
        if self.pool and sum(part.count for part in slices) > self.cache.cells - self.cache.used:
            outputs += self._write()  # before a request is set aside
            slices = self._fitting(self.pool, slices)
        if slices:
            outputs += self._decode(slices)
        return outputs + self._write()

    def wait(self) -> None:
        """Wait briefly for a grammar that is being compiled. Call it when nothing can be decoded."""
        if self._ahead:
            return
        grammars = [q.grammar.future for q in self._queue if q.grammar and not q.grammar.done()]
        if grammars:
            wait_for(grammars, timeout=_GRAMMAR_WAIT, return_when="FIRST_COMPLETED")

    def abandon(self) -> list[Output]:
        """Cancel all jobs."""
        outputs = self._finish_decode()
        for item in self._jobs():
            item.cancelled = True
        return outputs + self._drop_cancelled() + self._write()

    def _jobs(self) -> list[Queued | RunningCompletion]:
        return [*self._queue, *self._running.values(), *self.aside]

    def close(self) -> None:
        if self._use:
            self._use.save()
        if self._kept and not self._running:
            self.prefixes.stop()
            self._kept.save(self.native, self.cache, self._apply)
        for completion in (*self._running.values(), *self.aside):
            completion.close()
        self._running.clear()
        self._queue.clear()
        if self._speculator:
            self._speculator.close()
        self.native.close()

    def _drop_cancelled(self) -> list[Output]:
        outputs: list[Output] = []
        for queued in [q for q in self._queue if q.cancelled]:
            self._queue.remove(queued)
            if self.pool:
                self.pool.changed()
            outputs.append(Ended(id=queued.id, reason="cancelled", prompt_tokens=len(queued.prompt)))
        for completion in [c for c in self._running.values() if c.cancelled]:
            completion.reason = "cancelled"
            outputs += self._finish(completion)
        if self.pool:
            outputs += self._drop_aside(self.pool)
        return outputs

    def _drop_aside(self, pool: CellPool) -> list[Output]:
        outputs: list[Output] = []
        for completion in [c for c in pool.aside if c.cancelled]:
            completion.reason = "cancelled"
            pool.forget(completion)
            try:
                outputs += completion.outputs(self._clock(), self._counters.steps, self._counters.requests)
            except Exception as error:  # noqa: BLE001 - a failure ends its request alone
                outputs.append(Failed.of(completion.id, error))
            completion.close()
        return outputs

    def _admit(self) -> list[Output]:
        """Give sequences to waiting jobs, oldest first."""
        outputs: list[Output] = []
        for queued in list(self._queue):
            if len(self._running) >= self.options.parallel or self.aside:
                break
            if not self._may_begin(queued):
                continue
            if self.pool and not self._fits(self.pool, queued):
                break
            outputs += self._begin(queued)
        return outputs

    def _fits(self, pool: CellPool, queued: Queued) -> bool:
        return pool.fits(
            queued.prompt, queued.most, self._running.values(), share=queued.cache, scales=queued.scales,
            promised=self._promised(),
        )  # fmt: skip

    def _promised(self) -> int:
        """Return the cells for the rest of the declared prefix that is being computed."""
        work = self.prefixes.work
        return len(work.prompt) - work.computed if work else 0

    def _resume(self, pool: CellPool) -> None:
        """Resume the requests that are set aside, oldest first, as far as there is room."""

        def missing(completion: RunningCompletion) -> list[int]:
            return self.prefixes.missing_in(completion.prompt, completion.scales)

        if not self._running and pool.aside and self.prefixes.work:
            self.prefixes.stop()
        while completion := pool.resume(self._running.values(), promised=self._promised(), missing=missing):
            self._running[completion.id] = completion
            self._running = dict(sorted(self._running.items(), key=lambda item: item[1].age))
            if self._speculator:
                self._speculator.begin(completion)

    def _fitting(self, pool: CellPool, slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        """Return slices that fit into the pool: without guesses and idle cells, then without the youngest requests."""
        cache = self.cache
        while (count := sum(part.count for part in slices)) > cache.cells - cache.used:
            speculator = self._speculator
            if speculator and count > cache.cells - cache.held and speculator.drop(self._running.values()):
                slices = self._plan(guessing=False)
                continue
            self._apply(cache.make_room(count))
            if count <= cache.cells - cache.used:
                break
            victim = to_set_aside(list(self._running))
            if self.prefixes.work:
                self.prefixes.stop()
            elif victim is not None:
                self._set_aside(pool, self._running[victim])
            else:
                break
            slices = self._plan(guessing=False)
        return slices

    def _set_aside(self, pool: CellPool, completion: RunningCompletion) -> None:
        del self._running[completion.id]
        if self._speculator:
            self._speculator.drop([completion])
            self._speculator.end(completion)
        pool.set_aside(completion)

    def _may_begin(self, queued: Queued) -> bool:
        """Return False while its grammar is compiled, or another job computes a prefix that it can share."""
        if queued.grammar is not None and not queued.grammar.done():
            return False
        if not queued.cache:
            return True
        _, held = self.cache.match(queued.prompt[:-1], queued.scales)
        return not any(self._will_share(other, queued, held) for other in self._computing())

    def _will_share(self, other: RunningCompletion | PrefixWork, queued: Queued, held: int) -> bool:
        """Return True if a prompt that is being computed will have more of this one in memory than the `held` tokens.

        Memory that cannot be cut is shared where that computation stops.
        """
        if other.scales != queued.scales or other.prompt[: held + 1] != queued.prompt[: held + 1]:
            return False
        common = common_length(other.prompt, queued.prompt[:-1])
        if common <= held or other.computed >= len(other.prompt) - 1:
            return False
        if self._gain(queued.prompt, held, common) < self.cache.worth_waiting:
            return False
        if self.cache.cuttable or other is self.prefixes.work:
            return self.cache.cuttable or common == len(other.prompt)
        if other.computed >= common:
            return False
        self._states.stop_at(other.sequence, common)
        return True

    def _gain(self, prompt: Sequence[int], held: int, common: int) -> int:
        """Return the cells of a part of a prompt."""
        return common - held

    def _computing(self) -> list[RunningCompletion | PrefixWork]:
        """Return the completions and the declared prefix whose prompts are being computed."""
        prompts: list[RunningCompletion | PrefixWork] = [
            c for c in self._running.values() if not c.running and not c.cancelled
        ]
        return [self.prefixes.work, *prompts] if self.prefixes.work else prompts

    def _begin(self, queued: Queued) -> list[Output]:
        try:
            completion = queued.start()
        except Exception as error:  # noqa: BLE001 - a failure ends its request alone
            self._queue.remove(queued)
            return [Failed.of(queued.id, error)]
        share = queued.cache and not completion.all_logits
        if self._kept and share:
            self._kept.restore(queued.prompt, queued.owner, queued.scales, self.native, self.cache, self._apply)
        placement = self.cache.place(queued.prompt, share=share, scales=queued.scales)
        if placement is None:
            completion.close()
            self.prefixes.give_way()  # it has the last slot
            return []
        self._queue.remove(queued)
        self._apply(placement.operations)
        self._running[queued.id] = completion
        cached = self.cache.length(placement.sequence)
        self._counters.cached_tokens += cached
        completion.submitted, completion.scales = queued.submitted, queued.scales
        self._begun += 1
        completion.age = self._begun
        if self._speculator:
            self._speculator.begin(completion)
        try:
            begun = completion.begin(placement.sequence, cached, self._clock())
            if share:
                declared = self.prefixes.missing_in(queued.prompt, queued.scales)
                self._states.begin(placement.sequence, queued.prompt, cached, declared)
            return [begun]
        except Exception as error:  # noqa: BLE001 - a failure ends its request alone
            return self._fail(completion, error)

    def _plan(self, *, guessing: bool = True) -> tuple[Slice, ...]:
        room = self._batch.room
        together = self._decoded_together()
        if guessing and self._speculator and not self.prefixes.work:
            self._speculator.draft(together, room)
        if not self.prefixes.work and len(together) <= min(room, self._rows) and all(c.continues for c in together):
            return tuple([completion.next_token for completion in together])
        first = min((c.first for c in self._running.values() if c.running), default=math.inf)
        wanted = [self._states.until_stop(c.sequence, c.computed, c.pending_tokens(first)) for c in together]
        if self.prefixes.work and (self._turns is None or self.prefixes.scales == self._turns.current):
            wanted.append(self.prefixes.work.pending_tokens(late=first < math.inf))
        return plan(wanted, room=room, rows=self._rows, prompt_room=self._pace.prompt_room(room))

    def _decoded_together(self) -> Collection[RunningCompletion]:
        """Return the requests of the next decode: those with the adapter scales whose turn it is."""
        if self._turns is None:
            return self._running.values()
        wanted = [completion.scales for completion in self._running.values()]
        if self.prefixes.work:
            wanted.append(self.prefixes.scales)
        before, scales = self._turns.current, self._turns.choose(wanted, self._clock())
        if scales != before:
            self.native.set_adapters(tuple(zip(self._adapters, scales, strict=True)))
        return [completion for completion in self._running.values() if completion.scales == scales]

    def _decode(self, slices: Sequence[Slice]) -> list[Output]:
        parts = [(self._running[s.key], s) for s in slices if s.key != KEY]
        # llama.cpp's llama_batch_allocr::split_equal puts slots into one micro-batch only in this order.
        parts.sort(key=lambda part: part[0].sequence)
        warming = next((s.count for s in slices if s.key == KEY), 0)
        if not warming and _all_continue(parts) and self._pace.faster_singly(len(parts)):
            return [output for part in parts for output in self._decode_together([part], 0)]
        return self._decode_together(parts, warming, may_overlap=True)

    def _decode_together(
        self, parts: Sequence[tuple[RunningCompletion, Slice]], warming: int, *, may_overlap: bool = False
    ) -> list[Output]:
        continuing = not warming and _all_continue(parts)
        self._fill(parts, warming, continuing=continuing)
        started = self._clock()
        answers = len(parts) if continuing else sum(c.running for c, _ in parts)
        computing = warming or answers < len(parts)
        alone = self.cache.cuttable and not warming and not answers
        self._restart_until = started + self._pace.restart_window(self._batch.count) if alone else 0.0
        self._interruptible = bool(computing and not self._aborted)
        try:
            status = self.native.decode(self._batch)
        except EngineFailed as error:
            return self._write() + self._fail_all(parts, error)
        finally:
            self._interruptible = False
        self._aborted = status == ABORTED
        decode = _Decode(
            parts=parts,
            warming=warming,
            continuing=continuing,
            answering=answers if continuing else sum(s.count for c, s in parts if c.running),
            tokens=self._batch.count,
            started=started,
            accepted=self._clock(),
        )
        written = self._write()
        if status == DECODED and may_overlap and continuing and self._overlap.pays:
            self._ahead = decode
            return written
        now = self._measure(decode.started, len(parts))
        if status == ABORTED:
            self._undo(parts)
            return written
        if status == NO_CELLS:
            return written + self._free_cells(parts)
        return written + self._decoded(decode, now)

    def _measure(self, started: float, requests: int) -> float:
        """Wait for a decode and count it; return the time of its end."""
        self.native.synchronize()
        now = self._clock()
        self._counters.steps += 1
        self._counters.requests += requests
        self._counters.decode_seconds += now - started
        return now

    def _finish_decode(self) -> list[Output]:
        """Let every request of the decode that is ahead choose its next token."""
        decode, self._ahead = self._ahead, None
        if decode is None:
            return []
        return self._decoded(decode, self._measure(decode.started, len(decode.parts)), later=True)

    def _decoded(self, decode: _Decode, now: float, *, later: bool = False) -> list[Output]:
        """Record a computed decode, and let its requests choose. later: `_write` reports the text."""
        seconds = now - decode.started
        self._pace.observe(running=decode.answering, prompt=decode.tokens - decode.answering, seconds=seconds)
        self._answer_seconds = seconds if decode.answering == decode.tokens else math.inf
        if decode.continuing:
            self._overlap.observe(accepted=decode.accepted - decode.started, computed=seconds)
        if self._speculator:
            self._speculator.decoded(decode.parts, decode.warming)
        if decode.warming:
            self.prefixes.advance(decode.warming)
        if decode.continuing:
            return self._continue([completion for completion, _ in decode.parts], now, later=later)
        return self._advance(decode.parts, now)

    def _write(self) -> list[Output]:
        """Return the outputs of the tokens that `_continue` left for later."""
        unwritten, self._unwritten = self._unwritten, []
        outputs: list[Output] = []
        for completion in unwritten:
            if completion.id in self._running:
                try:
                    outputs += completion.outputs(self._unwritten_at)
                except Exception as error:  # noqa: BLE001 - a failure ends its request alone
                    outputs += self._fail(completion, error)
        return outputs

    def _fill(self, parts: Sequence[tuple[RunningCompletion, Slice]], warming: int, *, continuing: bool) -> None:
        self._batch.clear()
        self._apply(self.cache.make_room(warming + sum(s.count for _, s in parts)))
        if work := self.prefixes.work:
            self._batch.add(work.sequence, work.computed, work.pending(warming), 0)
        if continuing:
            self._batch.add_each([(c.sequence, c.computed, c.tokens[-1]) for c, _ in parts])
            return
        for completion, part in parts:
            tokens = completion.pending(part.count)
            self._batch.add(completion.sequence, completion.computed, tokens, part.rows)

    def _advance(self, parts: Sequence[tuple[RunningCompletion, Slice]], now: float) -> list[Output]:
        """Record the computed tokens, and let every request choose its next token."""
        outputs: list[Output] = []
        ends = list(accumulate(part.rows for _, part in parts))
        logits = self.native.logits(ends[-1]) if ends and ends[-1] else None
        choices: dict[int, ChosenToken] = {}
        if logits is not None:
            choosing = [(c, end - 1) for (c, part), end in zip(parts, ends, strict=True) if c.chooses_one(part)]
            made = first_choices([c for c, _ in choosing], [row for _, row in choosing], logits)
            choices = {c.id: choice for (c, _), choice in zip(choosing, made, strict=True)}
        for (completion, part), end in zip(parts, ends, strict=True):
            self.cache.extend(completion.sequence, completion.pending(part.count))
            rows = logits[end - part.rows : end] if logits is not None else ()
            try:
                outputs += self._choose_tokens(completion, part, rows, now, choices.get(completion.id))
            except Exception as error:  # noqa: BLE001 - a failure ends its request alone
                outputs += self._fail(completion, error)
        return outputs

    def _continue(self, completions: Sequence[RunningCompletion], now: float, *, later: bool) -> list[Output]:
        """Do the same where every request needed its last token alone: most steps. later: `_write` reports the text."""
        outputs: list[Output] = []
        logits = self.native.logits(len(completions))
        running = self._running
        rows = [row for row, c in enumerate(completions) if not c.chooses_alone and c.id in running]
        made = first_choices([completions[row] for row in rows], rows, logits)
        choices = dict(zip(rows, made, strict=True))
        added = 0
        for row, completion in enumerate(completions):
            if completion.id not in running:  # it failed while this decode computed
                continue
            self.cache.extend(completion.sequence, completion.tokens[-1:])
            try:
                added += completion.continued(logits, row, choices.get(row), later=later)
                if completion.reason is not None:
                    outputs += self._finish(completion)
                elif later:
                    self._unwritten.append(completion)
                else:
                    outputs += completion.outputs(now)
            except Exception as error:  # noqa: BLE001 - a failure ends its request alone
                outputs += self._fail(completion, error)
        self._unwritten_at = now
        self._counters.completion_tokens += added
        return outputs

    def _choose_tokens(
        self, completion: RunningCompletion, part: Slice, rows: Any, now: float, choice: ChosenToken | None
    ) -> list[Output]:
        before = completion.computed
        answered = completion.completion_tokens
        was_running = completion.running
        again = completion.first > 0  # an answer that was set aside, or whose decode was undone
        completion.decoded(part.count, rows, now, choice)
        if self._speculator:
            self._speculator.verified(completion, before, part.count)
        self._counters.completion_tokens += completion.completion_tokens - answered
        if not was_running:
            self._counters.prompt_tokens += min(before + part.count, len(completion.prompt)) - before
            self._states.computed(completion.sequence, completion.prompt, completion.computed)
            self.prefixes.adopt_computed(completion.prompt, completion.computed, completion.scales)
        report = not was_running and not again and (not completion.running or completion.job.progress)
        outputs: list[Output] = [completion.prefilled(now)] if report else []
        if completion.finished:
            return outputs + self._finish(completion)
        return outputs + completion.outputs(now)

    def _finish(self, completion: RunningCompletion) -> list[Output]:
        try:
            outputs = completion.outputs(self._clock(), self._counters.steps, self._counters.requests)
        except Exception as error:  # noqa: BLE001 - a failure ends its request alone
            return self._fail(completion, error)
        self._release(completion, keep=completion.keep)
        return outputs

    def _fail(self, completion: RunningCompletion, error: Exception) -> list[Output]:
        self._release(completion, keep=False)
        return [Failed.of(completion.id, error)]

    def _release(self, completion: RunningCompletion, *, keep: bool) -> None:
        if self._use:
            self._use.note(self._in_use())
        if self.pool:
            self.pool.changed()
        del self._running[completion.id]
        if self._speculator:
            self._speculator.end(completion)
        self._states.end(completion.sequence, keep=keep)
        self._apply(self.cache.release(completion.sequence, keep=keep))
        if self._kept and keep:
            self._remember(completion)
        completion.close()

    def _remember(self, completion: RunningCompletion) -> None:
        """Remember a conversation that may outlive the context."""
        if self._kept:
            tokens = completion.tokens[: completion.computed]
            self._kept.note(tokens, completion.job.owner, completion.scales)

    def _in_use(self) -> int:
        """Return the tokens that requests hold, or would hold in a larger pool."""
        declared = sum(self.cache.length(sequence) for sequence in self.cache.pinned)
        aside = self.pool.missing if self.pool else 0
        places = self.options.parallel - len(self._running) - len(self.aside)
        queue = self._queue[: max(0, places)] if self._full else []
        waiting = sum(self.cache.cells_of(queued.prompt) for queued in queue)
        return self.cache.held - declared + aside + waiting

    def _cut(self, computing: RunningCompletion | PrefixWork) -> bool:
        """Cut the memory of a sequence to its computed tokens; return False if it cannot continue from there."""
        sequence, length = computing.sequence, computing.computed
        cut = self.native.cut(sequence, length)
        return cut and (self.cache.cuttable or self.native.complete(sequence, length))

    def _undo(self, parts: Iterable[tuple[RunningCompletion, Slice]]) -> None:
        """Remove the tokens of an aborted batch from memory; a later decode computes them again.

        llama_decode keeps the cells of the micro-batches that it completed before the abort.
        """
        self.native.allow_decode()
        if (work := self.prefixes.work) and not self._cut(work):
            self._rewind(work)
        self._drop_guesses(parts)
        for completion, _ in parts:
            if not self._cut(completion):
                self._rewind(completion)

    def _drop_guesses(self, parts: Iterable[tuple[RunningCompletion, Slice]]) -> bool:
        """Drop the guesses of a decode that failed; return True if there were any."""
        return self._speculator is not None and self._speculator.drop(completion for completion, _ in parts)

    def _rewind(self, computing: RunningCompletion | PrefixWork) -> None:
        """Compute a sequence again from its last checkpoint, or from its first token."""
        self._apply(self.cache.rewind(computing.sequence))
        computing.computed = self.cache.length(computing.sequence)

    def _free_cells(self, parts: Sequence[tuple[RunningCompletion, Slice]]) -> list[Output]:
        """Free the idle cells, else fail the youngest request. Memory is full although the account has room."""
        freed = self.cache.make_room(self.cache.cells)
        self._apply(freed)
        if self._drop_guesses(parts) or freed:
            return []
        if self.pool and (victim := to_set_aside(list(self._running))) is not None:
            self._set_aside(self.pool, self._running[victim])
            return []
        error = EngineFailed("the context has no free cell", retry_after=1.0)
        return self._fail_all(parts[-1:], error)

    def _fail_all(self, parts: Sequence[tuple[RunningCompletion, Slice]], error: EngineFailed) -> list[Output]:
        """Fail these requests; without any, stop to compute declared prefixes."""
        if not parts:
            self.prefixes.give_up()
        return [output for completion, _ in parts for output in self._fail(completion, error)]

    def _apply(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            match operation:
                case Copy(source=source, target=target, length=length) if self.cache.cuttable:
                    self.native.copy(source, target, length)
                case Copy(source=source, target=target, length=length):
                    if not self._states.copy(source, target, length):
                        kept = self.native.complete(source, self.cache.length(source))
                        self._lose(*((target,) if kept else (source, target)))
                case Trim(sequence=sequence, length=length):
                    self.native.trim(sequence, length)
                case Restore(sequence=sequence, checkpoint=checkpoint):
                    if not self._states.restore(sequence, checkpoint):
                        self._lose(sequence)

    def _lose(self, *sequences: int) -> None:
        """Empty sequences that llama.cpp did not restore; what is running is computed again."""
        for sequence in sequences:
            self.cache.cut(sequence, 0)
            self.native.cut(sequence, 0)
        for completion in self._running.values():
            completion.computed = min(completion.computed, self.cache.length(completion.sequence))


def _all_continue(parts: Sequence[tuple[RunningCompletion, Slice]]) -> bool:
    """Return True if there are parts, and each is the last token of a request that continues its answer."""
    return bool(parts) and all(part is completion.next_token for completion, part in parts)
