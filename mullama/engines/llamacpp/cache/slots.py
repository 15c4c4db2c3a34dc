"""Assigns prompts to slots, where every running request has its own cells.

The other way to divide a cache is `prefix_tree`: one pool for all sequences. A pool shares prefixes for free, but
every decode reads all of its cells; in slots, the cells of other requests cost nothing. So slots are used where no
declared prefix is long enough to be worth sharing. The cells in use may be limited to fewer than those of all slots,
where other cells take no memory, see `binding/paged_memory.py`. A slot keeps its tokens until it is needed. A new
prompt with the same prefix uses them in place or, when the slot is busy, as a copy. A long prefix that is declared
later is computed in a slot, and stays there until the slot is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from mullama.engines.base import CachedSequence
from mullama.engines.llamacpp.cache.checkpoints import Checkpoints, Scales
from mullama.engines.llamacpp.cache.prefix_tree import (
    SHORTEST_SHARE,
    Copy,
    Operation,
    PrefixCache,
    SequencePlacement,
    Trim,
    common_length,
)

LONG_PREFIX = 256  # tokens; declared prefixes of this length are faster in a pool, and worth a slot of their own
WORTH_A_COPY = 64  # tokens; a copy moves the memory of a complete slot
WORTH_KEEPING = 64  # tokens; a slot with more tokens to lose is not overwritten while there is an older one


class SlotCache:
    """The slots of one context, of `size` cells each. It has the methods of `PrefixCache`."""

    pins = False
    shortest_declared = LONG_PREFIX  # a shorter one is computed with the prompt of the first request
    checkpoints = Checkpoints()  # none: slots are for memory that can be cut
    pinned: tuple[int, ...] = ()
    cuttable = True
    cellless = False
    cells_of = staticmethod(len)
    worth_waiting = WORTH_A_COPY

    def __init__(self, *, size: int, slots: int, cells: int = 0) -> None:
        """cells: the most cells in use at once, 0 for those of all slots."""
        self.cells = cells or size * slots
        self._limited = self.cells < size * slots
        self.kept = slots  # most declared prefixes
        self._tokens: list[list[int]] = [[] for _ in range(slots)]
        self._scales: list[Scales] = [() for _ in range(slots)]  # with which the tokens of each slot were computed
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(slots))  # least recently used first

    @property
    def used(self) -> int:
        return sum(map(len, self._tokens))

    @property
    def busy(self) -> int:
        """Slots that belong to a running request."""
        return len(self._tokens) - len(self._free)

    @property
    def contents(self) -> tuple[CachedSequence, ...]:
        """The sequences with tokens, the largest first."""
        found = [
            CachedSequence(use="conversation" if slot in self._free else "request", tokens=len(tokens))
            for slot, tokens in enumerate(self._tokens)
            if tokens
        ]
        return tuple(sorted(found, key=lambda sequence: -sequence.tokens))

    @property
    def held(self) -> int:
        """Cells that running requests hold."""
        return sum(len(tokens) for slot, tokens in enumerate(self._tokens) if slot not in self._free)

    def own(self, sequence: int) -> int:
        """Return the cells that only this sequence holds: slots share none."""
        return len(self._tokens[sequence])

    def shared(self, _tokens: list[int], _scales: Scales = ()) -> int:
        """Return the length of the prefix that these tokens would share with `held` cells: a busy slot is copied."""
        return 0

    def place(self, tokens: list[int], *, share: bool = True, scales: Scales = ()) -> SequencePlacement | None:
        """Return a slot for this prompt, None when all are busy. scales: of the adapters."""
        if not self._free:
            return None
        source, cached = self.match(tokens[:-1], scales) if share else (-1, 0)
        if source in self._free and cached >= SHORTEST_SHARE and self._may_overwrite(source, cached):
            return self._take(source, cached, [], scales)
        target = next(iter(self._free))
        operations: list[Operation] = []
        if cached < WORTH_A_COPY or source == target:
            own = self._common(target, tokens[:-1], scales) if share else 0
            return self._take(target, own if own >= SHORTEST_SHARE else 0, operations, scales)
        operations.append(Trim(sequence=target, length=0))
        operations.append(Copy(source=source, target=target, length=cached))
        self._tokens[target] = self._tokens[source][:cached]
        return self._take(target, cached, operations, scales)

    def match(self, tokens: list[int], scales: Scales = ()) -> tuple[int, int]:
        """Return the slot with the longest prefix of these tokens, a free one before a busy one, and its length."""
        best, longest = -1, 0
        busy = [slot for slot in range(len(self._tokens)) if slot not in self._free]
        for slot in (*self._free, *busy):
            # A longer prefix has the next token too. Most slots do not, and need no search for where they differ.
            if self._tokens[slot][longest : longest + 1] != tokens[longest : longest + 1]:
                continue
            length = self._common(slot, tokens, scales)
            if length > longest:
                best, longest = slot, length
        return best, longest

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        """Record computed tokens."""
        self._tokens[sequence].extend(tokens)

    def cut(self, sequence: int, length: int) -> None:
        """Record that a running request keeps only its first `length` tokens."""
        del self._tokens[sequence][length:]

    def scales(self, sequence: int) -> Scales:
        return self._scales[sequence]

    def rewind(self, sequence: int) -> tuple[Operation, ...]:
        """Return a running request to nothing."""
        self.cut(sequence, 0)
        return (Trim(sequence=sequence, length=0),)

    def release(self, sequence: int, *, keep: bool) -> tuple[Operation, ...]:
        """Free the slot of a request that ended; `keep` its tokens for later requests."""
        self._free[sequence] = None
        if keep:
            return ()
        self._free.move_to_end(sequence, last=False)
        self._tokens[sequence] = []
        return (Trim(sequence=sequence, length=0),)

    def pin(self, sequence: int) -> tuple[Operation, ...]:
        """Release the slot. A declared prefix stays in it until the slot is needed."""
        return self.release(sequence, keep=True)

    def unpin(self, sequence: int) -> None:
        """Do nothing: no slot is pinned."""

    def make_room(self, count: int) -> tuple[Operation, ...]:
        """Free idle slots, least recently used first, until `count` cells are free."""
        if count < self.cells and not self._limited:  # every slot has its own room
            return ()
        missing = self.used + count - self.cells
        operations = []
        for slot in self._free:
            if missing <= 0:
                break
            if self._tokens[slot]:
                missing -= len(self._tokens[slot])
                self._tokens[slot] = []
                operations.append(Trim(sequence=slot, length=0))
        return tuple(operations)

    def length(self, sequence: int) -> int:
        return len(self._tokens[sequence])

    def tokens(self, sequence: int) -> list[int]:
        return list(self._tokens[sequence])

    def _may_overwrite(self, slot: int, cached: int) -> bool:
        """Return True if few tokens are lost, or there is no older slot."""
        lost = len(self._tokens[slot]) - cached
        return lost < WORTH_KEEPING or slot == next(iter(self._free))

    def _common(self, slot: int, tokens: list[int], scales: Scales) -> int:
        return common_length(self._tokens[slot], tokens) if self._scales[slot] == scales else 0

    def _take(self, slot: int, cached: int, operations: list[Operation], scales: Scales) -> SequencePlacement:
        del self._free[slot]
        self._scales[slot] = scales
        if cached < len(self._tokens[slot]):
            operations.append(Trim(sequence=slot, length=cached))
            del self._tokens[slot][cached:]
        return SequencePlacement(sequence=slot, cached=cached, operations=tuple(operations))


Cells = PrefixCache | SlotCache
