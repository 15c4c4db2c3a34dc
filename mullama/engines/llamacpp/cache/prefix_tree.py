"""Tracks the tokens of each sequence in memory, finds prefixes to share, and chooses what to evict.

A tree mirrors the cells of a unified llama.cpp cache. A node is a run of cells. A sequence is the path from the root
to the node where it ends. Cells of several sequences are the nodes that their paths have in common. Two sequences
that computed the same text independently are two branches, because they hold two sets of cells. Each set of adapter
scales has a tree of its own, so cells are never shared between two sets.

Decisions are returned as operations (`Copy`, `Trim`), which the caller must apply to the real memory at once and in
order: `Copy` is llama_memory_seq_cp, which adds a sequence to existing cells, and `Trim` is llama_memory_seq_rm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from mullama.struct import Struct, field

SHORTEST_SHARE = 8  # tokens; sharing less is not worth a copy

Scales = tuple[float, ...]
"""The scale of each adapter of a context, in order. Tokens that were computed with other scales are other cells."""


class Copy(Struct, frozen=True, kw_only=True):
    """Share the first `length` cells of `source` with `target`, which is empty."""

    source: int
    target: int
    length: int


class Trim(Struct, frozen=True, kw_only=True):
    """Remove the tokens of a sequence after its first `length`."""

    sequence: int
    length: int


Operation = Copy | Trim


class SequencePlacement(Struct, frozen=True, kw_only=True):
    """A sequence for a new prompt."""

    sequence: int
    cached: int
    """Tokens of the prompt that are in memory once the operations are applied."""
    operations: tuple[Operation, ...]


class _Node(Struct, eq=False):
    """A run of cells."""

    tokens: list[int]
    parent: _Node | None
    children: dict[int, list[_Node]] = field(default_factory=dict)  # by their first token
    sequences: set[int] = field(default_factory=set)  # those that hold these cells


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common prefix of two lists.

    It compares slices of growing length and halves them at a difference: C compares slices many times faster than
    Python compares tokens one by one.
    """
    limit = min(len(left), len(right))
    low = 0
    step = 64
    while low < limit:
        high = min(low + step, limit)
        if left[low:high] == right[low:high]:
            low, step = high, step * 2
        elif step == 1 or high - low == 1:
            return low
        else:
            step = max(1, (high - low) // 2)
    return low


class PrefixCache:
    """The cells of one context: a pool of `cells` that all sequences share.

    Running requests have the sequence numbers below `running`, because llama.cpp reserves compute buffers for each
    sequence that it decodes. Ended requests and declared prefixes have the `kept` numbers above. `cuttable` is False
    for memory that can only be copied and dropped as a unit (recurrent states, sliding windows). `idle_cells` bounds
    the cells that only ended requests hold: every decode reads all cells in use, so they cost time as well as room.
    """

    def __init__(
        self, *, cells: int, running: int, kept: int, cuttable: bool = True, idle_cells: int | None = None
    ) -> None:
        self.cells = cells
        self.kept = kept
        self.worth_waiting = 4 * SHORTEST_SHARE  # tokens that another request is computing
        self._idle_cells = cells if idle_cells is None else idle_cells
        self.used = 0
        self.cuttable = cuttable
        self._roots: dict[Scales, _Node] = {}  # of each set of adapter scales that holds cells
        self._ends: dict[int, _Node] = {}  # where each sequence in use ends
        self._lengths: dict[int, int] = {}
        self._running = running
        self._free = list(range(running - 1, -1, -1))  # numbers for running requests, the lowest last
        self._free_kept = list(range(running + kept - 1, running - 1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._pinned: dict[int, None] = {}

    @property
    def busy(self) -> int:
        """Sequences that belong to a running request."""
        return self._running - len(self._free)

    @property
    def pinned(self) -> tuple[int, ...]:
        """Sequences that hold declared prefixes."""
        return tuple(self._pinned)

    def place(self, tokens: list[int], *, share: bool = True, scales: Scales = ()) -> SequencePlacement | None:
        """Return a sequence for this prompt, None when all are busy.

        The prompt's last token is never shared, because its logits are needed. scales: of the adapters.
        """
        if not self._free:
            return None
        source, cached = self.match(tokens[:-1], scales) if share else (-1, 0)
        sequence = self._free.pop()
        self._ends[sequence] = self._roots.setdefault(scales, _Node([], None))
        self._lengths[sequence] = 0
        if cached < SHORTEST_SHARE:
            return SequencePlacement(sequence=sequence, cached=0, operations=())
        operations: list[Operation] = [self._copy(source, sequence, cached)]
        if source in self._idle:
            self._idle.move_to_end(source)
            if self.cuttable and cached == self._lengths[source]:  # the copy holds all of its cells
                operations.append(self._drop(source))
        return SequencePlacement(sequence=sequence, cached=cached, operations=tuple(operations))

    def match(self, tokens: list[int], scales: Scales = ()) -> tuple[int, int]:
        """Return a sequence with the longest shareable prefix of these tokens, and its length; (-1, 0) for none."""
        best = (-1, 0)
        root = self._roots.get(scales)
        for node, length, complete in self._walk(root, tokens, 0) if root else ():
            if length <= best[1]:
                continue
            if self.cuttable:
                best = (min(node.sequences), length)
            elif complete:
                ends = [s for s in node.sequences if self._ends[s] is node]
                best = (min(ends), length) if ends else best
        return best

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        """Record computed tokens."""
        if not tokens:
            return
        end = self._ends[sequence]
        self.used += len(tokens)
        self._lengths[sequence] += len(tokens)
        if end.parent is not None and len(end.sequences) == 1 and not end.children:
            end.tokens.extend(tokens)
            return
        node = _Node(list(tokens), end, sequences={sequence})
        end.children.setdefault(tokens[0], []).append(node)
        self._ends[sequence] = node

    def cut(self, sequence: int, length: int) -> None:
        """Record that a running sequence keeps only its first `length` tokens."""
        while self._lengths[sequence] > length:
            end = self._ends[sequence]
            begin = self._lengths[sequence] - len(end.tokens)
            if begin < length:
                self._split(end, length - begin)
                begin = length
            self._leave(end, sequence)
            assert end.parent is not None
            self._ends[sequence] = end.parent
            self._lengths[sequence] = begin

    def release(self, sequence: int, *, keep: bool) -> tuple[Operation, ...]:
        """End a request; `keep` its tokens for later requests, or free them."""
        if not keep or self._lengths[sequence] < SHORTEST_SHARE:
            return (self._drop(sequence),)
        operations: list[Operation] = []
        kept = self._keep(sequence, operations)
        if kept is not None:
            self._idle[kept] = None
            # The last conversation is kept even if it is larger: its next turn is the likeliest request.
            while len(self._idle) > 1 and self._held_idle() > self._idle_cells:
                operations.append(self._drop(next(iter(self._idle))))
        return tuple(operations)

    def pin(self, sequence: int) -> tuple[Operation, ...]:
        """Keep a declared prefix, which is evicted last, and free the sequence for another request."""
        operations: list[Operation] = []
        kept = self._keep(sequence, operations)
        if kept is not None:
            self._pinned[kept] = None
        return tuple(operations)

    def unpin(self, sequence: int) -> None:
        """Make a prefix that is no longer declared evictable like any other."""
        del self._pinned[sequence]
        self._idle[sequence] = None

    def make_room(self, count: int) -> tuple[Operation, ...]:
        """Free idle sequences, least recently used first and declared prefixes last, until `count` cells are free."""
        operations: list[Operation] = []
        while self.used + count > self.cells:
            victim = next(iter(self._idle), None)
            if victim is None:
                victim = next(iter(self._pinned), None)
            if victim is None:
                break
            operations.append(self._drop(victim))
        return tuple(operations)

    def length(self, sequence: int) -> int:
        return self._lengths[sequence]

    def tokens(self, sequence: int) -> list[int]:
        """Return the tokens of a sequence in order."""
        runs: list[list[int]] = []
        node: _Node | None = self._ends[sequence]
        while node is not None:
            runs.append(node.tokens)
            node = node.parent
        return [token for run in reversed(runs) for token in run]

    def _walk(self, node: _Node, tokens: list[int], depth: int) -> Iterator[tuple[_Node, int, bool]]:
        """Yield (node, matching tokens up to and in it, all of its tokens match) along these tokens."""
        if depth == len(tokens):
            return
        for child in node.children.get(tokens[depth], ()):
            run = len(child.tokens)
            if child.tokens == tokens[depth : depth + run]:
                yield child, depth + run, True
                yield from self._walk(child, tokens, depth + run)
            else:
                yield child, depth + common_length(child.tokens, tokens[depth : depth + run]), False

    def _keep(self, sequence: int, operations: list[Operation]) -> int | None:
        """Move a sequence to a kept number, evicting the least recently used one if necessary; return the number."""
        if not self._free_kept and self._idle:
            operations.append(self._drop(next(iter(self._idle))))
        kept = self._free_kept.pop() if self._free_kept else None
        if kept is not None:  # otherwise all kept numbers hold declared prefixes, and the sequence is dropped
            operations.append(self._copy(sequence, kept, self._lengths[sequence]))
        operations.append(self._drop(sequence))
        return kept

    def _held_idle(self) -> int:
        """Return the number of cells that only ended requests hold."""
        needed: set[int] = set()  # ids of nodes
        cells = 0
        for sequence, end in self._ends.items():
            node: _Node | None = end
            while sequence not in self._idle and node is not None and id(node) not in needed:
                needed.add(id(node))
                cells += len(node.tokens)
                node = node.parent
        return self.used - cells

    def _copy(self, source: int, target: int, length: int) -> Copy:
        self._share(source, target, length)
        return Copy(source=source, target=target, length=length)

    def _share(self, source: int, target: int, length: int) -> None:
        """Record that `target` holds the first `length` cells of `source`; split the node where they end."""
        node, depth = self._ends[source], self._lengths[source]
        while depth - len(node.tokens) >= length:
            depth -= len(node.tokens)
            assert node.parent is not None
            node = node.parent
        if depth > length:
            node = self._split(node, len(node.tokens) - (depth - length))
        self._ends[target] = node
        self._lengths[target] = length
        while node.parent is not None:
            node.sequences.add(target)
            node = node.parent

    def _split(self, node: _Node, offset: int) -> _Node:
        """Split a run in two; the node keeps its second part. Return the node of the first part."""
        parent = node.parent
        assert parent is not None
        upper = _Node(node.tokens[:offset], parent, sequences=set(node.sequences))
        siblings = parent.children[node.tokens[0]]
        siblings[siblings.index(node)] = upper
        node.tokens = node.tokens[offset:]
        node.parent = upper
        upper.children = {node.tokens[0]: [node]}
        return upper

    def _drop(self, sequence: int) -> Trim:
        """Free the number of a sequence and the cells that no other sequence holds."""
        node = self._ends.pop(sequence)
        del self._lengths[sequence]
        self._idle.pop(sequence, None)
        self._pinned.pop(sequence, None)
        while node.parent is not None:
            parent = node.parent
            self._leave(node, sequence)
            node = parent
        if not node.children and node not in self._ends.values():
            self._roots = {scales: root for scales, root in self._roots.items() if root is not node}
        (self._free if sequence < self._running else self._free_kept).append(sequence)
        return Trim(sequence=sequence, length=0)

    def _leave(self, node: _Node, sequence: int) -> None:
        """Remove a sequence from a node, and the node from the tree with its last sequence."""
        node.sequences.discard(sequence)
        if node.sequences:
            return
        self.used -= len(node.tokens)
        parent = node.parent
        assert parent is not None
        siblings = parent.children[node.tokens[0]]
        siblings.remove(node)
        if not siblings:
            del parent.children[node.tokens[0]]
