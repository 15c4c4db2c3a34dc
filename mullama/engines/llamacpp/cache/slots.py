"""Which slot a new prompt goes into, where every running request has cells of its own.

The other way to part a cache is `prefixes`: one pool that all sequences see. A pool shares beginnings for free, but
every decode passes over all of its cells; slots cost nothing for what other requests hold. So slots are used where
no declared beginning is long enough to be worth sharing. What a slot held last stays until the slot is needed, and a
beginning of it is used again, in place or, when it lies in a busy slot, as a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from mullama.engines.llamacpp.cache.prefix_tree import (
    SHORTEST_SHARE,
    Copy,
    Operation,
    PrefixCache,
    SequencePlacement,
    Trim,
    common_length,
)

WORTH_A_COPY = 64  # tokens; a copy moves the memory of a whole slot
WORTH_KEEPING = 64  # tokens of another conversation that are not overwritten while there is an older slot


class SlotCache:
    """The slots of one context; `size` is how many cells each has. Does what `PrefixCache` does."""

    kept = 0  # no declared beginnings
    pinned: tuple[int, ...] = ()
    cuttable = True
    worth_waiting = WORTH_A_COPY

    def __init__(self, *, size: int, slots: int) -> None:
        self.cells = size * slots
        self._tokens: list[list[int]] = [[] for _ in range(slots)]
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(slots))  # least recently used first

    @property
    def used(self) -> int:
        return sum(map(len, self._tokens))

    @property
    def busy(self) -> int:
        """Slots that belong to a running request."""
        return len(self._tokens) - len(self._free)

    def place(self, tokens: list[int], *, share: bool = True) -> SequencePlacement | None:
        """A slot for this prompt, None when all are taken."""
        if not self._free:
            return None
        source, cached = self.match(tokens[:-1]) if share else (-1, 0)
        if source in self._free and cached >= SHORTEST_SHARE and self._may_overwrite(source, cached):
            return self._take(source, cached, [])
        target = next(iter(self._free))
        operations: list[Operation] = []
        if cached < WORTH_A_COPY or source == target:
            own = common_length(self._tokens[target], tokens[:-1]) if share else 0
            return self._take(target, own if own >= SHORTEST_SHARE else 0, operations)
        operations.append(Trim(sequence=target, length=0))
        operations.append(Copy(source=source, target=target, length=cached))
        self._tokens[target] = self._tokens[source][:cached]
        return self._take(target, cached, operations)

    def match(self, tokens: list[int]) -> tuple[int, int]:
        """The slot with the longest beginning of these tokens, a free one before a busy one, and its length."""
        best = (-1, 0)
        for slot in (*self._free, *range(len(self._tokens))):
            length = common_length(self._tokens[slot], tokens)
            if length > best[1]:
                best = (slot, length)
        return best

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        """More tokens of a slot were computed."""
        self._tokens[sequence].extend(tokens)

    def cut(self, sequence: int, length: int) -> None:
        """A running request forgot everything after its first `length` tokens."""
        del self._tokens[sequence][length:]

    def release(self, sequence: int, *, keep: bool) -> tuple[Operation, ...]:
        """A request ended: its slot is free, and holds what it computed until it is needed."""
        self._free[sequence] = None
        if keep:
            return ()
        self._free.move_to_end(sequence, last=False)
        self._tokens[sequence] = []
        return (Trim(sequence=sequence, length=0),)

    def pin(self, sequence: int) -> tuple[Operation, ...]:
        """There are no declared beginnings here: the tokens stay as those of any request."""
        return self.release(sequence, keep=True)

    def unpin(self, sequence: int) -> None:
        """There is nothing to unpin."""

    def make_room(self, count: int) -> tuple[Operation, ...]:
        """Every slot has its own room, so this forgets only when all of it is asked for."""
        if count < self.cells:
            return ()
        held = [slot for slot in self._free if self._tokens[slot]]
        for slot in held:
            self._tokens[slot] = []
        return tuple(Trim(sequence=slot, length=0) for slot in held)

    def length(self, sequence: int) -> int:
        return len(self._tokens[sequence])

    def tokens(self, sequence: int) -> list[int]:
        return list(self._tokens[sequence])

    def _may_overwrite(self, slot: int, cached: int) -> bool:
        """Little would be lost, or there is no older slot to take instead."""
        lost = len(self._tokens[slot]) - cached
        return lost < WORTH_KEEPING or slot == next(iter(self._free))

    def _take(self, slot: int, cached: int, operations: list[Operation]) -> SequencePlacement:
        del self._free[slot]
        if cached < len(self._tokens[slot]):
            operations.append(Trim(sequence=slot, length=cached))
            del self._tokens[slot][cached:]
        return SequencePlacement(sequence=slot, cached=cached, operations=tuple(operations))


Cells = PrefixCache | SlotCache
