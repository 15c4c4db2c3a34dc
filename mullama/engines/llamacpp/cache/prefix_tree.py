"""Tracks the tokens of each sequence in memory, finds prefixes to share, and chooses what to evict.

A tree mirrors the cells of a unified llama.cpp cache. A node is a run of cells. A sequence is the path from the root
to the node where it ends. Cells of several sequences are the nodes that their paths have in common. Two sequences
that computed the same text independently are two branches, because they hold two sets of cells. Each set of adapter
scales has a tree of its own, so cells are never shared between two sets.

Decisions are returned as operations (`Copy`, `Trim`, `Restore`), which the caller must apply to the real memory at
once and in order: `Copy` is llama_memory_seq_cp, which adds a sequence to existing cells, `Trim` is
llama_memory_seq_rm, and `Restore` is llama_state_seq_set_data_ext of the part that cannot be cut.

Memory that cannot be cut (recurrent states, sliding windows) is complete at the end of a sequence, and where `intact`
says so. Elsewhere a prompt continues from a checkpoint, over the cells that another sequence holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from mullama.engines.base import CachedSequence
from mullama.engines.llamacpp.cache.checkpoints import WORTH_KEEPING, Checkpoint, Checkpoints, Scales
from mullama.struct import Struct, field

SHORTEST_SHARE = 8  # tokens; sharing less is not worth a copy


class Copy(Struct, frozen=True, kw_only=True):
    """Share the first `length` cells of `source` with `target`, which is empty."""

    source: int
    target: int
    length: int


class Trim(Struct, frozen=True, kw_only=True):
    """Remove the tokens of a sequence after its first `length`."""

    sequence: int
    length: int


class Restore(Struct, frozen=True, kw_only=True):
    """Replace the part of a sequence that cannot be cut by the saved one. Its other cells reach to the checkpoint."""

    sequence: int
    checkpoint: Checkpoint


Operation = Copy | Trim | Restore


class SequencePlacement(Struct, frozen=True, kw_only=True):
    """A sequence for a new prompt."""

    sequence: int
    cached: int
    """Tokens of the prompt that are in memory once the operations are applied."""
    operations: tuple[Operation, ...]


class _Match(Struct, frozen=True):
    """The longest prefix from which a prompt may continue."""

    source: int = -1
    """A sequence with its cells; -1 if a checkpoint has all of it."""
    length: int = 0
    checkpoint: Checkpoint | None = None


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
    sequence that it decodes. Ended requests and declared prefixes have the `kept` numbers above. `idle_cells` bounds
    the cells that only ended requests hold: every decode reads all cells in use, so they cost time as well as room.

    `cuttable` is False for memory of which a part cannot be cut. `checkpoints` are copies of that part, and
    `intact(sequence, length)` tells where a sequence has it without one. `cellless` memory has no other part. Memory
    of both parts has few numbers, because each needs memory. They are all alike: an ended request keeps its own until
    a new one needs it.
    """

    pins = True
    """Declared prefixes stay in memory."""
    shortest_declared = SHORTEST_SHARE
    """Tokens of a declared prefix; a shorter one is computed with the prompt of each request."""
    cells_of: Callable[[Sequence[int]], int] = staticmethod(len)
    """Returns the cells of tokens. Those of media may need more than one for each position, see `media.run_cache`."""

    def __init__(
        self,
        *,
        cells: int,
        running: int,
        kept: int,
        cuttable: bool = True,
        idle_cells: int | None = None,
        checkpoints: Checkpoints | None = None,
        intact: Callable[[int, int], bool] = lambda _sequence, _length: False,
        cellless: bool = False,
    ) -> None:
        self.cells = cells
        self.checkpoints = checkpoints or Checkpoints()
        self._intact = intact
        self.cellless = cellless
        self.kept = kept
        self.worth_waiting = 4 * SHORTEST_SHARE if cuttable else WORTH_KEEPING  # tokens that another one is computing
        self._idle_cells = cells if idle_cells is None else idle_cells
        self.used = 0
        self.cuttable = cuttable
        self._roots: dict[Scales, _Node] = {}  # of each set of adapter scales that holds cells
        self._ends: dict[int, _Node] = {}  # where each sequence in use ends
        self._lengths: dict[int, int] = {}
        self._most_busy = running
        self._in_place = not cuttable and not cellless
        self._running = running + kept if self._in_place else running
        self._free = list(range(self._running - 1, -1, -1))  # numbers for running requests, the lowest last
        self._free_kept = list(range(running + kept - 1, self._running - 1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._pinned: dict[int, None] = {}
        self._scales: dict[int, Scales] = {}
        self._asked: dict[int, int] = {}  # tokens of the prompt of each sequence, without the answer
        self._continued: int | None = None  # the last ended request whose conversation continued without all of it

    @property
    def busy(self) -> int:
        """Sequences that belong to a running request."""
        return len(self._ends) - len(self._idle) - len(self._pinned)

    @property
    def pinned(self) -> tuple[int, ...]:
        """Sequences that hold declared prefixes."""
        return tuple(self._pinned)

    @property
    def contents(self) -> tuple[CachedSequence, ...]:
        """The sequences in use, the largest first."""
        found = [CachedSequence(use=self._use(sequence), tokens=length) for sequence, length in self._lengths.items()]
        return tuple(sorted(found, key=lambda sequence: -sequence.tokens))

    def _use(self, sequence: int) -> Literal["request", "prefix", "conversation"]:
        return "prefix" if sequence in self._pinned else "conversation" if sequence in self._idle else "request"

    @property
    def held(self) -> int:
        """Cells that running requests and declared prefixes hold."""
        return self.used - self._held_idle()

    def own(self, sequence: int) -> int:
        """Return the cells that only this sequence holds."""
        node, cells = self._ends[sequence], 0
        while node.parent is not None and len(node.sequences) == 1:
            cells += self.cells_of(node.tokens)
            node = node.parent
        return cells

    def shared(self, tokens: list[int], scales: Scales = ()) -> int:
        """Return the length of the prefix that these tokens would share with `held` cells."""
        found = self._find(tokens, scales).length
        if found < SHORTEST_SHARE:
            return 0
        walk = self._walk_from(scales, tokens)
        lengths = (length for node, length, _ in walk if not node.sequences <= self._idle.keys())
        return min(found, max(lengths, default=0))

    def place(self, tokens: list[int], *, share: bool = True, scales: Scales = ()) -> SequencePlacement | None:
        """Return a sequence for this prompt, None when all are busy.

        The prompt's last token is never shared, because its logits are needed. scales: of the adapters.
        """
        if self.busy >= self._most_busy:
            return None
        found = self._find(tokens[:-1], scales) if share else _Match()
        if found.length < SHORTEST_SHARE:
            found = _Match()
        operations: list[Operation] = []
        if not self._free and (victim := self._first_idle(but=found.source)) is not None:
            operations.append(self._drop(victim))
        if not self._free:
            return self._continue(found, len(tokens)) if found.source in self._idle else None
        sequence = self._free.pop()
        self._ends[sequence] = self._roots.setdefault(scales, _Node([], None))
        self._lengths[sequence] = 0
        self._asked[sequence], self._scales[sequence] = len(tokens), scales
        if found.source < 0:
            self.extend(sequence, tokens[: found.length])
        else:
            operations.append(self._copy(found.source, sequence, found.length))
            operations += self._reused(found)
        if found.checkpoint is not None:
            operations.append(self._restore(sequence, found.checkpoint))
        return SequencePlacement(sequence=sequence, cached=found.length, operations=tuple(operations))

    def match(self, tokens: list[int], scales: Scales = ()) -> tuple[int, int]:
        """Return a sequence with the longest shareable prefix of these tokens, and its length; (-1, 0) for none.

        The sequence is -1 too where a checkpoint has all of the prefix.
        """
        found = self._find(tokens, scales)
        return found.source, found.length

    def _find(self, tokens: list[int], scales: Scales) -> _Match:
        held: dict[int, int] = {}  # tokens of the prompt whose cells each sequence has
        best = _Match()
        for node, length, _ in self._walk_from(scales, tokens):
            if self.cuttable:
                best = _Match(min(node.sequences), length) if length > best.length else best
            else:
                held |= {s: length for s in node.sequences if length > held.get(s, 0)}
        # The longest sequence of which the prompt has all. It shares its window or state; others are copied for each.
        sharing, shared = -1, 0
        for sequence, length in sorted(held.items()):
            whole = length == self._lengths[sequence]
            if length > best.length and (whole or self._intact(sequence, length)):
                best = _Match(sequence, length)
            if whole and length > shared:
                shared, sharing = length, sequence
        if self.cuttable:
            return best
        limit = len(tokens) if self.cellless else max(held.values(), default=0)
        checkpoint = self.checkpoints.find(tokens, limit, scales)
        longest = max(best.length, checkpoint.length if checkpoint else 0)
        if shared and longest - shared < SHORTEST_SHARE:
            return _Match(sharing, shared)
        if checkpoint is None or checkpoint.length <= best.length:
            return best
        sources = (s for s, length in held.items() if length >= checkpoint.length and not self.cellless)
        return _Match(min(sources, default=-1), checkpoint.length, checkpoint)

    def _reused(self, found: _Match) -> list[Operation]:
        """Return what to do with an ended request whose cells a new one shares."""
        if found.source not in self._idle:
            return []
        length = self._lengths[found.source]
        if self.cuttable and found.length == length:  # the copy holds all of its cells
            return [self._drop(found.source)]
        if found.length < self._asked[found.source] - SHORTEST_SHARE:
            self._idle.move_to_end(found.source)
            return []
        # The new prompt has all of the old one, so it continues that conversation with another answer. Only the last
        # such answer is kept: every decode reads all cells in use.
        outdated, self._continued = self._continued, found.source
        self._idle.move_to_end(found.source, last=False)
        return [] if outdated in (None, found.source) else [self._drop(outdated)]

    def _continue(self, found: _Match, asked: int) -> SequencePlacement:
        """Give an ended request's own number to a new one that continues it."""
        sequence = found.source
        del self._idle[sequence]
        self._asked[sequence] = asked
        self._continued = None if self._continued == sequence else self._continued
        operations: list[Operation] = []
        if found.checkpoint is not None:
            operations.append(self._restore(sequence, found.checkpoint))
        if found.length < self._lengths[sequence]:
            self.cut(sequence, found.length)
            operations.append(Trim(sequence=sequence, length=found.length))
        return SequencePlacement(sequence=sequence, cached=found.length, operations=tuple(operations))

    def _restore(self, sequence: int, checkpoint: Checkpoint) -> Restore:
        self.checkpoints.hold(sequence, checkpoint)
        return Restore(sequence=sequence, checkpoint=checkpoint)

    def rewind(self, sequence: int) -> tuple[Operation, ...]:
        """Return a running sequence to its longest checkpoint, or to nothing, where memory cannot be cut otherwise."""
        checkpoint = self.checkpoints.find(self.tokens(sequence), self._lengths[sequence], self._scales[sequence])
        self.cut(sequence, checkpoint.length if checkpoint else 0)
        if checkpoint is None:
            return (Trim(sequence=sequence, length=0),)
        return (self._restore(sequence, checkpoint), Trim(sequence=sequence, length=checkpoint.length))

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
        self.checkpoints.release(sequence)
        if not keep or self._lengths[sequence] < SHORTEST_SHARE:
            dropped = self._drop(sequence)
            self._forget_lost()
            return (dropped,)
        operations: list[Operation] = []
        kept = self._keep(sequence, operations)
        if kept is not None:
            self._idle[kept] = None
            # The last conversation is kept even if it is larger: its next turn is the likeliest request.
            while len(self._idle) > 1 and self._held_idle() > self._idle_cells:
                operations.append(self._drop(next(iter(self._idle))))
        self._forget_lost()
        return tuple(operations)

    def pin(self, sequence: int) -> tuple[Operation, ...]:
        """Keep a declared prefix, which is evicted last, and free the sequence for another request."""
        self.checkpoints.release(sequence)
        if len(self._pinned) >= self.kept:
            return (self._drop(sequence),)
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
        if operations:
            self._forget_lost()
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

    def scales(self, sequence: int) -> Scales:
        """Return the adapter scales of a sequence."""
        return self._scales[sequence]

    def _walk_from(self, scales: Scales, tokens: list[int]) -> Iterator[tuple[_Node, int, bool]]:
        root = self._roots.get(scales)
        return self._walk(root, tokens, 0) if root else iter(())

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
        if self._in_place:
            return sequence
        if not self._free_kept and self._idle:
            operations.append(self._drop(next(iter(self._idle))))
        kept = self._free_kept.pop() if self._free_kept else None
        if kept is not None:  # otherwise all kept numbers hold declared prefixes, and the sequence is dropped
            self._asked[kept], self._scales[kept] = self._asked[sequence], self._scales[sequence]
            operations.append(self._copy(sequence, kept, self._lengths[sequence]))
        operations.append(self._drop(sequence))
        return kept

    def _first_idle(self, *, but: int) -> int | None:
        """Return the least recently used ended request with a number below `running`."""
        return next((s for s in self._idle if s < self._running and s != but), None)

    def _forget_lost(self) -> None:
        """Drop the checkpoints whose cells no sequence holds."""
        if self.cuttable or self.cellless:
            return

        def lost(checkpoint: Checkpoint) -> bool:
            walk = self._walk_from(checkpoint.scales, checkpoint.tokens)
            return max((length for _, length, _ in walk), default=0) < checkpoint.length

        self.checkpoints.forget(lost)

    def _held_idle(self) -> int:
        """Return the number of cells that only ended requests hold."""
        needed: set[int] = set()  # ids of nodes
        cells = 0
        for sequence, end in self._ends.items():
            node: _Node | None = end
            while sequence not in self._idle and node is not None and id(node) not in needed:
                needed.add(id(node))
                cells += self.cells_of(node.tokens)
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
        del self._asked[sequence], self._scales[sequence]
        if sequence == self._continued:
            self._continued = None
        self._idle.pop(sequence, None)
        self._pinned.pop(sequence, None)
        while node.parent is not None:
            parent = node.parent
            self._leave(node, sequence)
            node = parent
        if not node.children and node not in self._ends.values():
            self._roots = {scales: root for scales, root in self._roots.items() if root is not node}
        (self._free if sequence < self._running else self._free_kept).append(sequence)
        self.checkpoints.release(sequence)
        return Trim(sequence=sequence, length=0)

    def _leave(self, node: _Node, sequence: int) -> None:
        """Remove a sequence from a node, and the node from the tree with its last sequence."""
        node.sequences.discard(sequence)
        if node.sequences:
            return
        self.used -= self.cells_of(node.tokens)
        parent = node.parent
        assert parent is not None
        siblings = parent.children[node.tokens[0]]
        siblings.remove(node)
        if not siblings:
            del parent.children[node.tokens[0]]
