"""Declared prompt beginnings: restored from disk or computed while nothing else runs, then kept for all requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mullama.engines.llamacpp.batcher import PendingTokens
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles
from mullama.engines.llamacpp.cache.prefix_tree import Operation
from mullama.engines.llamacpp.cache.slots import Cells

_NO_TOKEN = -1  # stands after a beginning, so that all of it may be shared
KEY = -1  # of the work in a plan; jobs have keys of 0 and more

Apply = Callable[[Iterable[Operation]], None]


class PrefixWork:
    """A beginning that is being computed; goes into decodes like the prompt of a request."""

    def __init__(self, prompt: list[int], sequence: int, computed: int) -> None:
        self.prompt = prompt
        self.sequence = sequence
        self.computed = computed

    def waiting(self, *, late: bool) -> PendingTokens:
        tokens = len(self.prompt) - self.computed
        return PendingTokens(key=KEY, tokens=tokens, running=False, rows=0, late=late)

    def pending(self, count: int) -> list[int]:
        return self.prompt[self.computed : self.computed + count]


class Warmth:
    """The declared beginnings of one context."""

    def __init__(self, native: NativeContext, cache: Cells, files: PrefixFiles | None, apply: Apply) -> None:
        self._native = native
        self._cache = cache
        self._files = files
        self._apply = apply
        self._declared: list[list[int]] = []
        self.work: PrefixWork | None = None

    @property
    def complete(self) -> bool:
        """Whether every declared beginning is in memory."""
        return len(self._cache.pinned) >= len(self._declared)

    def declare(self, beginnings: list[list[int]]) -> bool:
        """These are the beginnings from now on; True when all of them are in memory or came from disk.

        What would not fit beside the others is left out: it is worth nothing if it drives them away.
        """
        self._declared = []
        for tokens in beginnings[: self._cache.kept]:
            if sum(map(len, self._declared)) + len(tokens) <= self._cache.cells:
                self._declared.append(tokens)
        self._stop(keep=True)
        for sequence in self._cache.pinned:
            if self._cache.tokens(sequence) not in beginnings:
                self._cache.unpin(sequence)
        for tokens in self._missing():
            state = self._files.load(tokens) if self._files else None
            if state is not None and not self._adopt(tokens, state) and self._files:
                self._files.discard(tokens)
        return self.complete

    def restart(self, files: PrefixFiles | None) -> None:
        """Nothing that was computed is right any more; `files` is where new results are kept."""
        self._files = files
        self._stop(keep=False)

    def start(self) -> None:
        """Begin to compute a beginning that is not in memory."""
        missing = self._missing() if self.work is None and not self.complete else []
        placement = self._cache.place([*missing[0], _NO_TOKEN]) if missing else None
        if placement is not None:
            self._apply(placement.operations)
            self.work = PrefixWork(missing[0], placement.sequence, placement.cached)
            self.advance(0)

    def give_up(self) -> None:
        """What is not in memory cannot be computed: it is no longer wanted."""
        self._stop(keep=False)
        self._declared = [self._cache.tokens(sequence) for sequence in self._cache.pinned]

    def advance(self, count: int) -> None:
        """The next `count` tokens of the work are in memory."""
        work = self.work
        assert work is not None
        self._cache.extend(work.sequence, work.pending(count))
        work.computed += count
        if work.computed == len(work.prompt):
            if self._files:
                self._files.save(work.prompt, self._native.save(work.sequence))
            self._apply(self._cache.pin(work.sequence))
            self.work = None

    def seen(self, prompt: list[int], computed: int) -> None:
        """A request computed its prompt so far: a missing beginning of it is kept from now on."""
        if self.complete or not self._cache.cuttable:
            return
        for tokens in self._missing():
            if computed >= len(tokens) and prompt[: len(tokens)] == tokens:
                placement = self._cache.place([*tokens, _NO_TOKEN])
                if placement is not None and placement.cached == len(tokens):
                    self._apply((*placement.operations, *self._cache.pin(placement.sequence)))
                elif placement is not None:
                    self._apply(self._cache.release(placement.sequence, keep=False))

    def _missing(self) -> list[list[int]]:
        held = [self._cache.tokens(sequence) for sequence in self._cache.pinned]
        return [tokens for tokens in self._declared if tokens not in held]

    def _stop(self, *, keep: bool) -> None:
        if self.work is not None:
            self._apply(self._cache.release(self.work.sequence, keep=keep))
            self.work = None

    def _adopt(self, tokens: list[int], state: bytes) -> bool:
        """Take a beginning from its saved state; False when llama.cpp does not accept it."""
        placement = self._cache.place(tokens, share=False)
        if placement is None:
            return False
        sequence = placement.sequence
        self._apply(self._cache.make_room(len(tokens)))
        taken = self._native.restore(sequence, state)
        if taken and self._native.last_position(sequence) == len(tokens) - 1:
            self._cache.extend(sequence, tokens)
            self._apply(self._cache.pin(sequence))
            return True
        self._apply(self._cache.release(sequence, keep=False))
        return False
