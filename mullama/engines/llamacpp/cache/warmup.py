"""Declared prompt prefixes: restored from disk or computed while nothing else runs, then kept for all requests.

A pool keeps them for good. In slots, which have no room of their own for them, each is computed once after it was
declared, and lives as long as a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mullama.engines.llamacpp.batcher import PendingTokens
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import Operation
from mullama.engines.llamacpp.cache.slots import Cells

_NO_TOKEN = -1  # follows a prefix where `place` wants a prompt: the last token of a prompt is never shared
KEY = -1  # of the prefix in a plan; keys of jobs are not negative

Apply = Callable[[Iterable[Operation]], None]


class PrefixWork:
    """A prefix that is being computed. It takes part in decodes like the prompt of a request."""

    def __init__(self, prompt: list[int], sequence: int, computed: int, scales: Scales) -> None:
        self.prompt = prompt
        self.scales = scales
        self.sequence = sequence
        self.computed = computed

    def pending_tokens(self, *, late: bool) -> PendingTokens:
        tokens = len(self.prompt) - self.computed
        return PendingTokens(key=KEY, tokens=tokens, running=False, rows=0, late=late)

    def pending(self, count: int) -> list[int]:
        return self.prompt[self.computed : self.computed + count]


class DeclaredPrefixes:
    """Keeps the declared prefixes of one context in memory. scales: of its adapters, where a request names none."""

    def __init__(
        self, native: NativeContext, cache: Cells, files: PrefixFiles | None, apply: Apply, scales: Scales = ()
    ) -> None:
        self.scales = scales
        self._native = native
        self._cache = cache
        self._files = files
        self._apply = apply
        self._declared: list[list[int]] = []
        self._done: list[list[int]] = []  # those that have been in memory since, where the cache pins none
        self.work: PrefixWork | None = None

    @property
    def complete(self) -> bool:
        """True when every declared prefix is in memory, or was there if the cache pins none."""
        return len(self._cache.pinned) + len(self._done) >= len(self._declared)

    @property
    def tokens(self) -> int:
        """The tokens of the declared prefixes that requests can share."""
        return sum(map(len, self._declared))

    def declare(self, prefixes: list[list[int]]) -> bool:
        """Replace the declared prefixes; return True when all of them are in memory or restored from disk.

        A prefix that does not fit next to the others is left out, because it would evict them.
        """
        self._declared, self._done = [], []
        for tokens in [t for t in prefixes if len(t) >= self._cache.shortest_declared][: self._cache.kept]:
            if sum(map(len, self._declared)) + len(tokens) <= self._cache.cells:
                self._declared.append(tokens)
        self._stop(keep=True)
        for sequence in self._cache.pinned:
            if self._cache.tokens(sequence) not in prefixes:
                self._cache.unpin(sequence)
        self._look_into_slots()
        for tokens in self._missing():
            state = self._files.load(tokens) if self._files else None
            if state is not None and not self._restore(tokens, state) and self._files:
                self._files.discard(tokens)
        return self.complete

    def rescale(self, scales: Scales, files: PrefixFiles | None) -> None:
        """Replace the scales of the adapters; `files` keeps the results from now on."""
        self._stop(keep=False)
        self.scales, self._files = scales, files
        for sequence in self._cache.pinned:
            self._cache.unpin(sequence)
        self.declare(self._declared)

    def stop(self) -> None:
        """Discard the prefix that is being computed."""
        self._stop(keep=False)

    def give_way(self) -> None:
        """Stop to compute a prefix, for a request that needs its sequence. Its tokens stay while there is room."""
        self._stop(keep=True)

    def start(self) -> None:
        """Begin to compute a prefix that is not in memory."""
        if self.work is not None or self.complete:
            return
        self._look_into_slots()
        missing = self._missing()
        placement = self._cache.place([*missing[0], _NO_TOKEN], scales=self.scales) if missing else None
        if placement is not None:
            self._apply(placement.operations)
            self.work = PrefixWork(missing[0], placement.sequence, placement.cached, self.scales)
            self.advance(0)

    def give_up(self) -> None:
        """Remove the prefixes that are not in memory from the declared ones, because they cannot be computed."""
        self.stop()
        self._declared = [*(self._cache.tokens(sequence) for sequence in self._cache.pinned), *self._done]

    def advance(self, count: int) -> None:
        """Record that the next `count` tokens of the work are in memory."""
        work = self.work
        assert work is not None
        self._cache.extend(work.sequence, work.pending(count))
        work.computed += count
        if work.computed == len(work.prompt):
            if self._files:
                self._files.save(work.prompt, self._native.save(work.sequence))
            self._pin(work.sequence, work.prompt)
            self.work = None

    def adopt_computed(self, prompt: list[int], computed: int, scales: Scales) -> None:
        """Keep the missing prefixes of a prompt, of which a request has computed this many tokens."""
        if self.complete or scales != self.scales:
            return
        for tokens in self._missing():
            reached = computed >= len(tokens) if self._cache.cuttable else computed == len(tokens)
            if not reached or prompt[: len(tokens)] != tokens:
                continue
            if not self._cache.pins:
                self._done.append(tokens)
            else:
                placement = self._cache.place([*tokens, _NO_TOKEN], scales=scales)
                if placement is not None and placement.cached == len(tokens):
                    self._apply((*placement.operations, *self._cache.pin(placement.sequence)))
                elif placement is not None:
                    self._apply(self._cache.release(placement.sequence, keep=False))

    def missing_in(self, prompt: list[int], scales: Scales) -> list[int]:
        """Return the lengths of the declared prefixes that this prompt begins with and that are not in memory."""
        return (
            [] if self.complete or scales != self.scales else [len(t) for t in self._missing() if prompt[: len(t)] == t]
        )

    def _missing(self) -> list[list[int]]:
        held = [*(self._cache.tokens(sequence) for sequence in self._cache.pinned), *self._done]
        return [tokens for tokens in self._declared if tokens not in held]

    def _pin(self, sequence: int, tokens: list[int]) -> None:
        self._apply(self._cache.pin(sequence))
        if not self._cache.pins:
            self._done.append(tokens)

    def _look_into_slots(self) -> None:
        """Note the missing prefixes that conversations or requests in slots begin with."""
        if not self._cache.pins:
            self._done += [t for t in self._missing() if self._cache.match(t, self.scales)[1] == len(t)]

    def _stop(self, *, keep: bool) -> None:
        if self.work is not None:
            self._apply(self._cache.release(self.work.sequence, keep=keep))
            self.work = None

    def _restore(self, tokens: list[int], state: bytes) -> bool:
        """Restore a prefix from its saved state; return False when llama.cpp does not accept it."""
        placement = self._cache.place(tokens, share=False, scales=self.scales)
        if placement is None:
            return False
        sequence = placement.sequence
        self._apply((*placement.operations, *self._cache.make_room(len(tokens))))
        taken = self._native.restore(sequence, state)
        if taken and self._native.last_position(sequence) == len(tokens) - 1:
            self._cache.extend(sequence, tokens)
            self._pin(sequence, tokens)
            return True
        self._apply(self._cache.release(sequence, keep=False))
        return False
