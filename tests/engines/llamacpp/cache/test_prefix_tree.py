"""The tree of cells against a plain model: holders of cells, sharing, order of eviction."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mullama.engines.llamacpp.cache.checkpoints import WORTH_KEEPING, Checkpoints, Scales
from mullama.engines.llamacpp.cache.prefix_tree import (
    SHORTEST_SHARE,
    Copy,
    Operation,
    PrefixCache,
    Restore,
    Trim,
    common_length,
)

LONG = list(range(100, 140))


class Cell:
    """One computed token."""

    def __init__(self, scales: Scales) -> None:
        self.scales = scales


class Memory:
    """What llama.cpp would hold: for each sequence its cells, shared by being the same.

    `states` are the parts that cannot be cut: the number of tokens that each is the state of.
    """

    def __init__(self) -> None:
        self.held: dict[int, list[Cell]] = {}
        self.states: dict[int, int] = {}

    def apply(self, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            match operation:
                case Copy(source=source, target=target, length=length):
                    assert not self.held.get(target), "a copy into a sequence that is not empty"
                    assert len(self.held[source]) >= length
                    self.held[target] = self.held[source][:length]
                    self.states[target] = self.states.get(source, 0)
                case Trim(sequence=sequence, length=length):
                    self.held[sequence] = self.held.get(sequence, [])[:length]
                    if length == 0:
                        self.states[sequence] = 0
                case Restore(sequence=sequence, checkpoint=checkpoint):
                    self.states[sequence] = checkpoint.length

    def compute(self, sequence: int, count: int, scales: Scales = ()) -> None:
        self.held.setdefault(sequence, []).extend(Cell(scales) for _ in range(count))
        self.states[sequence] = self.states.get(sequence, 0) + count

    @property
    def used(self) -> int:
        return len({id(cell) for cells in self.held.values() for cell in cells})


def cache(cells: int = 1000, running: int = 4, kept: int = 8, *, cuttable: bool = True) -> PrefixCache:
    return PrefixCache(cells=cells, running=running, kept=kept, cuttable=cuttable)


def ended(prefixes: PrefixCache, tokens: list[int]) -> None:
    """A request with this prompt came and went."""
    placement = prefixes.place(tokens)
    assert placement is not None
    prefixes.extend(placement.sequence, tokens[placement.cached :])
    prefixes.release(placement.sequence, keep=True)


def test_the_contents_name_the_use_of_each_sequence() -> None:
    prefixes = cache()
    declared = prefixes.place(LONG)
    assert declared is not None
    prefixes.extend(declared.sequence, LONG)
    prefixes.pin(declared.sequence)
    ended(prefixes, [*LONG, 1, 2, 3])
    running = prefixes.place([*LONG[:20], 5])
    assert running is not None
    found = [(one.use, one.tokens) for one in prefixes.contents]
    assert found == [("conversation", 43), ("prefix", 40), ("request", 20)]
    assert prefixes.used < 43 + 40 + 20


def test_a_prompt_is_computed_once() -> None:
    prefixes = cache()
    ended(prefixes, LONG)
    placement = prefixes.place([*LONG, 1, 2])
    assert placement is not None
    assert placement.cached == len(LONG)
    assert prefixes.used == len(LONG)


def test_a_prompt_is_computed_once_for_each_set_of_adapter_scales() -> None:
    prefixes = cache()
    for scales in ((), (1.0, 0.0), (0.0, 1.0)):
        placement = prefixes.place([*LONG, 1], scales=scales)
        assert placement is not None
        assert placement.cached == 0
        prefixes.extend(placement.sequence, LONG)
        assert prefixes.match(LONG, scales) == (placement.sequence, len(LONG))
        prefixes.release(placement.sequence, keep=True)
    assert prefixes.match(LONG, (1.0, 1.0)) == (-1, 0)
    assert prefixes.used == 3 * len(LONG)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    prefixes = cache()
    ended(prefixes, LONG)
    placement = prefixes.place(LONG)
    assert placement is not None
    assert placement.cached == len(LONG) - 1


def test_a_beginning_is_shared_with_a_running_request() -> None:
    prefixes = cache()
    first = prefixes.place([*LONG, 1])
    assert first is not None
    prefixes.extend(first.sequence, LONG[:30])
    second = prefixes.place([*LONG, 2])
    assert second is not None
    assert second.cached == 30
    assert second.operations == (Copy(source=first.sequence, target=second.sequence, length=30),)
    prefixes.extend(second.sequence, LONG[30:])
    assert prefixes.used == 30 + len(LONG) - 30
    assert prefixes.tokens(second.sequence) == LONG


def test_a_few_tokens_are_not_worth_a_copy() -> None:
    prefixes = cache()
    ended(prefixes, [*LONG[: SHORTEST_SHARE - 1], 1, 2, 3])
    placement = prefixes.place([*LONG])
    assert placement is not None
    assert placement.cached == 0


def test_sharing_can_be_declined() -> None:
    prefixes = cache()
    ended(prefixes, LONG)
    placement = prefixes.place(LONG, share=False)
    assert placement is not None
    assert (placement.cached, placement.operations) == (0, ())


def test_the_least_recently_used_goes_first_and_declared_beginnings_last() -> None:
    prefixes = cache(cells=100)
    declared = prefixes.place([*LONG, -1])
    assert declared is not None
    prefixes.extend(declared.sequence, LONG)
    prefixes.pin(declared.sequence)
    ended(prefixes, list(range(20)))
    ended(prefixes, list(range(200, 230)))
    assert prefixes.used == 90
    prefixes.make_room(20)
    assert prefixes.match(list(range(20)))[1] == 0
    assert prefixes.match(list(range(200, 230)))[1] == 30
    prefixes.make_room(60)
    assert prefixes.match(LONG)[1] == len(LONG)
    prefixes.make_room(100)
    assert prefixes.used == 0


def test_using_an_ended_conversation_makes_it_the_last_to_go() -> None:
    prefixes = cache(cells=100)
    ended(prefixes, list(range(30)))
    ended(prefixes, list(range(200, 230)))
    again = prefixes.place([*range(20), 7, 8])
    assert again is not None
    prefixes.release(again.sequence, keep=False)
    prefixes.make_room(50)
    assert prefixes.match(list(range(30)))[1] == 30
    assert prefixes.match(list(range(200, 230)))[1] == 0


def test_of_the_answers_that_a_conversation_left_behind_the_last_is_kept() -> None:
    """Every decode reads all cells in use, so they are not kept for their own sake."""
    prefixes = cache()
    prompt = list(range(100))
    for turn in range(5):
        placement = prefixes.place(prompt)
        assert placement is not None
        answer = list(range(1000 * turn, 1000 * turn + 40))
        prefixes.extend(placement.sequence, [*prompt, *answer][placement.cached :])
        prefixes.release(placement.sequence, keep=True)
        assert prefixes.used <= len(prompt) + 2 * 40
        prompt += [*answer[20:], *range(500, 550)]
    assert prefixes.match(prompt)[1] == len(prompt) - 70


def test_a_conversation_with_the_same_beginning_is_another_one() -> None:
    prefixes = cache()
    chats = [[*range(100), *range(1000 * n, 1000 * n + 50)] for n in range(1, 5)]
    for chat in chats * 2:
        ended(prefixes, chat)
    assert [prefixes.match(chat)[1] for chat in chats] == [150] * 4


def test_running_requests_are_never_forgotten() -> None:
    prefixes = cache(cells=50)
    placement = prefixes.place(LONG)
    assert placement is not None
    prefixes.extend(placement.sequence, LONG)
    assert prefixes.make_room(50) == ()
    assert prefixes.used == len(LONG)


def test_a_conversation_that_went_on_is_kept_once() -> None:
    prefixes = cache()
    for turn in range(1, 6):
        ended(prefixes, list(range(turn * 20)))
    assert prefixes.used == 100
    assert prefixes.busy == 0


def test_only_so_many_cells_are_kept_for_ended_requests() -> None:
    """The last one is kept whatever it holds, and what others hold too does not count."""
    prefixes = PrefixCache(cells=1000, running=4, kept=8, idle_cells=50)
    running = prefixes.place([*LONG, 1])
    assert running is not None
    prefixes.extend(running.sequence, LONG)
    ended(prefixes, [*LONG, *range(20)])
    ended(prefixes, list(range(200, 225)))
    assert prefixes.used == 40 + 20 + 25
    ended(prefixes, list(range(300, 330)))
    assert prefixes.match([*LONG, *range(20)]) == (running.sequence, 40)
    assert prefixes.used == 40 + 30
    ended(prefixes, list(range(400, 500)))
    assert prefixes.match(list(range(400, 500)))[1] == 100
    assert prefixes.used == 40 + 100


def test_memory_that_cannot_be_cut_is_shared_only_whole() -> None:
    prefixes = cache(cuttable=False)
    ended(prefixes, LONG)
    assert prefixes.match([*LONG[:20], 1, 2]) == (-1, 0)
    sequence, length = prefixes.match([*LONG, 1, 2])
    assert length == len(LONG)
    assert prefixes.length(sequence) == length


def partial(*, kept: int = 2, running: int = 3, cellless: bool = False) -> PrefixCache:
    """Memory of which a part cannot be cut, with checkpoints of ten bytes each."""
    return PrefixCache(
        cells=2000, running=running, kept=kept, cuttable=False, checkpoints=Checkpoints(100), cellless=cellless
    )


def with_checkpoint(prefixes: PrefixCache, tokens: list[int], length: int, *, keep: bool = True) -> int:
    """A request came and went, and left a checkpoint; return its sequence."""
    placement = prefixes.place(tokens)
    assert placement is not None
    prefixes.extend(placement.sequence, tokens[placement.cached :])
    prefixes.checkpoints.add(placement.sequence, tokens[:length], bytes(10))
    prefixes.release(placement.sequence, keep=keep)
    return placement.sequence


CHAT = list(range(1000, 1300))


def test_a_changed_conversation_continues_from_its_checkpoint() -> None:
    prefixes = partial()
    with_checkpoint(prefixes, CHAT, 200)
    source, length = prefixes.match([*CHAT[:250], 1, 2])
    assert length == 200
    placement = prefixes.place([*CHAT[:250], 1, 2])
    assert placement is not None
    (checkpoint,) = prefixes.checkpoints.kept
    assert placement.operations == (
        Copy(source=source, target=placement.sequence, length=200),
        Restore(sequence=placement.sequence, checkpoint=checkpoint),
    )
    assert prefixes.used == len(CHAT), "the cells are shared"


def test_a_checkpoint_without_cells_is_dropped_unless_it_has_all() -> None:
    for cellless in (False, True):
        prefixes = partial(cellless=cellless)
        with_checkpoint(prefixes, CHAT, 200, keep=False)
        prefixes.make_room(2000)
        assert prefixes.match(CHAT) == ((-1, 200) if cellless else (-1, 0))
        assert len(prefixes.checkpoints.kept) == int(cellless)
    placement = prefixes.place(CHAT)
    assert placement is not None
    assert prefixes.tokens(placement.sequence) == CHAT[:200]
    assert [type(o) for o in placement.operations] == [Restore]


def test_a_window_that_is_still_there_needs_no_checkpoint() -> None:
    prefixes = PrefixCache(
        cells=1000, running=3, kept=2, cuttable=False, intact=lambda _sequence, length: length >= 270
    )
    ended(prefixes, CHAT)
    assert prefixes.match([*CHAT[:280], 1])[1] == 280
    assert prefixes.match([*CHAT[:260], 1])[1] == 0


def test_a_window_is_copied_only_for_more_than_a_few_tokens() -> None:
    """A window that another sequence has left takes cells of its own in each copy; one at its end is shared."""
    prefixes = PrefixCache(cells=1000, running=3, kept=3, cuttable=False, intact=lambda _sequence, _length: True)
    ended(prefixes, CHAT[:200])
    ended(prefixes, [*CHAT[:230], 1, 2])
    assert prefixes.match([*CHAT[:203], 9])[1] == 200
    assert prefixes.match([*CHAT[:230], 9])[1] == 230


def test_an_ended_request_keeps_its_number_until_a_new_one_needs_it() -> None:
    """Numbers are few where each needs memory: more conversations than kept numbers continue."""
    prefixes = partial(kept=2)
    chats = [[n] * 100 for n in range(4)]
    for chat in chats:
        ended(prefixes, chat)
    assert [prefixes.match(chat)[1] for chat in chats] == [100] * 4
    ended(prefixes, [9] * 100)
    assert [prefixes.match(chat)[1] for chat in chats] == [100] * 4
    ended(prefixes, [8] * 100)
    assert [prefixes.match(chat)[1] for chat in chats] == [0, 100, 100, 100]
    running = [prefixes.place([n] * 50) for n in range(20, 23)]
    assert None not in running
    assert prefixes.place([30] * 50) is None


def test_the_last_number_continues_where_it_is() -> None:
    prefixes = partial(kept=0, running=1)
    with_checkpoint(prefixes, CHAT, 200)
    (checkpoint,) = prefixes.checkpoints.kept
    placement = prefixes.place([*CHAT[:250], 1, 2])
    assert placement is not None
    assert placement.cached == 200
    assert placement.operations == (Restore(sequence=0, checkpoint=checkpoint), Trim(sequence=0, length=200))
    assert prefixes.tokens(0) == CHAT[:200]


def test_a_running_request_returns_to_its_checkpoint() -> None:
    prefixes = partial()
    placement = prefixes.place([*CHAT, 1])
    assert placement is not None
    prefixes.extend(placement.sequence, CHAT)
    assert prefixes.rewind(placement.sequence) == (Trim(sequence=placement.sequence, length=0),)
    prefixes.extend(placement.sequence, CHAT)
    prefixes.checkpoints.add(placement.sequence, CHAT[:200], bytes(10))
    (checkpoint,) = prefixes.checkpoints.kept
    assert prefixes.rewind(placement.sequence) == (
        Restore(sequence=placement.sequence, checkpoint=checkpoint),
        Trim(sequence=placement.sequence, length=200),
    )
    assert prefixes.tokens(placement.sequence) == CHAT[:200]


def test_there_is_no_sequence_when_all_are_running() -> None:
    prefixes = cache(running=2)
    assert prefixes.place([1, 2]) is not None
    assert prefixes.place([3, 4]) is not None
    assert prefixes.place([5, 6]) is None


@given(st.lists(st.integers(0, 2), max_size=300), st.lists(st.integers(0, 2), max_size=300), st.integers(0, 200))
def test_the_common_length_is_that_of_the_definition(left: list[int], right: list[int], same: int) -> None:
    left, right = [7] * same + left, [7] * same + right
    expected = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    assert common_length(left, right) == expected


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40)
chats = st.tuples(st.integers(0, 1), st.integers(WORTH_KEEPING, 200)).map(lambda c: [c[0]] * c[1])


adapters = st.sampled_from([(), (1.0,), (0.5,)])


class Story(RuleBasedStateMachine):
    """Requests come, grow, shrink and go; the cache and a plain memory that carries out its operations agree."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.running: dict[int, list[int]] = {}
        self.scales: dict[int, Scales] = {}

    @initialize(
        cuttable=st.booleans(), cellless=st.booleans(), kept=st.integers(0, 4), idle=st.integers(0, 120),
        most=st.integers(0, 8),
    )  # fmt: skip
    def open(self, cuttable: bool, cellless: bool, kept: int, idle: int, most: int) -> None:
        self.cache = PrefixCache(
            cells=120, running=3, kept=kept, cuttable=cuttable, idle_cells=idle, checkpoints=Checkpoints(most),
            cellless=cellless and not cuttable,
        )  # fmt: skip

    @rule(pick=st.integers(0, 2))
    def take(self, pick: int) -> None:
        if self.running and not self.cache.cuttable:
            sequence = sorted(self.running)[pick % len(self.running)]
            tokens = list(self.running[sequence])
            if self.cache.checkpoints.wants(sequence, tokens, 1, self.scales[sequence]):
                self.cache.checkpoints.add(sequence, tokens, b"s", self.scales[sequence])

    @rule(pick=st.integers(0, 2))
    def rewind(self, pick: int) -> None:
        if self.running and not self.cache.cuttable:
            sequence = sorted(self.running)[pick % len(self.running)]
            self.memory.apply(self.cache.rewind(sequence))
            length = self.cache.length(sequence)
            self.memory.held[sequence] = self.memory.held.get(sequence, [])[:length]
            self.running[sequence] = self.running[sequence][:length]

    @rule(tokens=prompts | chats, share=st.booleans(), scales=adapters)
    def begin(self, tokens: list[int], share: bool, scales: Scales) -> None:
        placement = self.cache.place(tokens, share=share, scales=scales)
        if placement is None:
            assert len(self.running) == 3
            return
        self.memory.apply(placement.operations)
        assert placement.sequence not in self.running
        assert placement.cached < len(tokens)
        self.running[placement.sequence] = tokens[: placement.cached]
        self.scales[placement.sequence] = scales
        if self.cache.cellless and placement.cached and not self.memory.held.get(placement.sequence):
            self.memory.held[placement.sequence] = [Cell(scales) for _ in range(placement.cached)]
        assert all(cell.scales == scales for cell in self.memory.held.get(placement.sequence, []))
        self.grow(placement.sequence, tokens[placement.cached :])

    def grow(self, sequence: int, tokens: list[int]) -> None:
        self.memory.apply(self.cache.make_room(len(tokens)))
        self.cache.extend(sequence, tokens)
        self.memory.compute(sequence, len(tokens), self.scales[sequence])
        self.running[sequence] += tokens

    @rule(tokens=prompts, pick=st.integers(0, 2))
    def go_on(self, tokens: list[int], pick: int) -> None:
        if self.running:
            self.grow(sorted(self.running)[pick % len(self.running)], tokens[:5])

    @rule(pick=st.integers(0, 2), length=st.integers(0, 50))
    def shrink(self, pick: int, length: int) -> None:
        if self.running and self.cache.cuttable:
            sequence = sorted(self.running)[pick % len(self.running)]
            self.cache.cut(sequence, length)
            self.memory.apply((Trim(sequence=sequence, length=length),))
            self.running[sequence] = self.running[sequence][:length]

    @rule(pick=st.integers(0, 2), keep=st.booleans(), pin=st.booleans())
    def end(self, pick: int, keep: bool, pin: bool) -> None:
        if self.running:
            sequence = sorted(self.running)[pick % len(self.running)]
            tokens = self.running.pop(sequence)
            operations = self.cache.pin(sequence) if pin and tokens else self.cache.release(sequence, keep=keep)
            self.memory.apply(operations)

    @rule()
    def undeclare(self) -> None:
        for sequence in self.cache.pinned:
            self.cache.unpin(sequence)

    @invariant()
    def the_account_is_right(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.used == self.memory.used
            assert self.cache.busy == len(self.running)
            for sequence, tokens in self.running.items():
                assert self.cache.tokens(sequence) == tokens
                assert len(self.memory.held.get(sequence, [])) == len(tokens)
                assert self.cache.cuttable or self.memory.states.get(sequence, 0) == len(tokens)


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
