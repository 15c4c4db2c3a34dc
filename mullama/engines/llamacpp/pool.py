"""The pool of cells of one context, where it is smaller than the worst case: room for requests, and those set aside.

`pool_policy` decides. The state of a request that is set aside is copied to main memory, or its tokens are computed
again where that is cheaper, or where the states of others take all the room that the plan counts for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from mullama.engines.base import PoolUse
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.partial_states import PartialStates
from mullama.engines.llamacpp.cache.prefix_tree import Operation
from mullama.engines.llamacpp.cache.slots import Cells
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.pool_policy import Demand, may_begin, recompute, reserve_of
from mullama.struct import Struct
from mullama.weights.memory import ASIDE_SHARE

_LOOK_AGAIN = 16  # steps after which a full pool is looked at again, if no request ends before


class _SetAside(Struct, eq=False):
    """A request without cells."""

    completion: RunningCompletion
    computed: int
    """Tokens in the state."""
    state: memoryview | None
    """None where the tokens are computed again."""


class CellPool:
    """The requests of one context and their room.

    size: most tokens of one request. token_seconds: returns the time to compute one token of a prompt, if known.
    """

    def __init__(
        self,
        native: NativeContext,
        cache: Cells,
        states: PartialStates,
        apply: Callable[[Iterable[Operation]], None],
        *,
        size: int,
        token_seconds: Callable[[], float | None],
    ) -> None:
        self._native = native
        self._cache = cache
        self._states = states
        self._apply = apply
        self._reserve = reserve_of(size)
        self._token_seconds = token_seconds
        self._aside: list[_SetAside] = []  # oldest first
        self._bytes, self._most_bytes = 0, native.kv_bytes // ASIDE_SHARE
        self._full = 0  # steps for which the pool is taken to be full
        self.set_asides = 0
        self.resumes = 0

    @property
    def aside(self) -> list[RunningCompletion]:
        """The requests that are set aside, oldest first."""
        return [item.completion for item in self._aside]

    @property
    def full(self) -> bool:
        """True while requests wait for room."""
        return bool(self._full or self._aside)

    @property
    def missing(self) -> int:
        """Tokens of the requests that are set aside."""
        return sum(item.computed for item in self._aside)

    def use(self, context: str) -> PoolUse:
        """Return the state of the pool of this context."""
        return PoolUse(
            context=context,
            size=self._cache.cells,
            used=self._cache.used,
            set_aside=len(self._aside),
            set_asides=self.set_asides,
            resumes=self.resumes,
        )

    def changed(self) -> None:
        """Look for room again: a request ended, or waits no more."""
        self._full = 0

    def fits(
        self,
        prompt: list[int],
        answer: int,
        running: Collection[RunningCompletion],
        *,
        share: bool,
        scales: Scales,
        promised: int,
    ) -> bool:
        """Return True if a request may begin. answer: most tokens of its answer.

        share: it shares cells of others. promised: cells for a declared prefix that is being computed.
        """
        if self._full and running:
            self._full -= 1
            return False
        shared = self._cache.shared(prompt[:-1], scales) if share else 0
        pending = self._cache.cells_of(prompt[shared:])
        demands = [Demand(pending=c.left_to_decode, left=c.left) for c in running]
        free = self._cache.cells - self._cache.held - promised
        fits = may_begin(Demand(pending=pending, left=answer), demands, free=free, reserve=self._reserve)
        self._full = 0 if fits else _LOOK_AGAIN
        return fits

    def set_aside(self, completion: RunningCompletion) -> None:
        """Free the cells of a running request."""
        cache, native, sequence, computed = self._cache, self._native, completion.sequence, completion.computed
        size = native.state_size(sequence)
        again = cache.own(sequence) if cache.cuttable else computed
        state = None
        if not recompute(again, size, self._most_bytes - self._bytes, self._token_seconds()):
            state = native.save(sequence)
            self._bytes += len(state)
        self._aside.append(_SetAside(completion, computed, state))
        self._aside.sort(key=lambda item: item.completion.age)
        self._states.end(sequence, keep=False)
        self._apply(cache.release(sequence, keep=False))
        completion.sequence = -1
        self.set_asides += 1
        self.changed()

    def forget(self, completion: RunningCompletion) -> None:
        """Forget a request that was set aside and is cancelled."""
        for item in [item for item in self._aside if item.completion is completion]:
            self._remove(item)
            self.changed()

    def resume(
        self,
        running: Collection[RunningCompletion],
        *,
        promised: int,
        missing: Callable[[RunningCompletion], list[int]],
    ) -> RunningCompletion | None:
        """Give cells to the oldest request that is set aside, if there is room; return it.

        promised: as for `fits`. missing: returns the lengths of declared prefixes of a request that are not in memory.
        """
        if not self._aside:
            return None
        item = self._aside[0]
        completion = item.completion
        share = completion.keep and not completion.all_logits
        shares = share and item.state is None
        if not self.fits(
            completion.tokens, completion.left, running, share=shares, scales=completion.scales, promised=promised
        ):
            return None
        if not (self._restore(item) or self._begin_again(completion, share=share)):
            return None
        self._remove(item)
        self.resumes += 1
        if share:
            self._states.begin(completion.sequence, completion.prompt, completion.computed, missing(completion))
        return completion

    def _restore(self, item: _SetAside) -> bool:
        """Read a state into a sequence of its own; return False without one, or if llama.cpp does not take it."""
        completion, computed = item.completion, item.computed
        if item.state is None:
            return False
        placement = self._cache.place(completion.tokens, share=False, scales=completion.scales)
        if placement is None:
            return False
        sequence = placement.sequence
        self._apply(placement.operations)
        self._apply(self._cache.make_room(computed))
        taken = self._native.restore(sequence, item.state) and self._native.complete(sequence, computed)
        if not taken or self._native.last_position(sequence) != computed - 1:
            self._native.cut(sequence, 0)
            self._apply(self._cache.release(sequence, keep=False))
            return False
        self._cache.extend(sequence, completion.tokens[:computed])
        completion.sequence, completion.computed = sequence, computed
        return True

    def _begin_again(self, completion: RunningCompletion, *, share: bool) -> bool:
        """Compute a request again, from what is in memory of it."""
        known = completion.tokens if completion.first else completion.prompt
        placement = self._cache.place(known, share=share, scales=completion.scales)
        if placement is None:
            return False
        self._apply(placement.operations)
        completion.sequence, completion.computed = placement.sequence, self._cache.length(placement.sequence)
        return True

    def _remove(self, item: _SetAside) -> None:
        self._aside.remove(item)
        self._bytes -= len(item.state) if item.state is not None else 0
