"""Slots: the slot of a prompt, the tokens it keeps, and the tokens it loses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mullama.engines.llamacpp.cache.checkpoints import Scales
from mullama.engines.llamacpp.cache.prefix_tree import Copy, Trim, common_length
from mullama.engines.llamacpp.cache.slots import WORTH_A_COPY, SlotCache

LONG = list(range(100, 300))
OTHER = list(range(500, 700))


def ended(slots: SlotCache, tokens: list[int]) -> int:
    """A request with this prompt came and went; its slot."""
    placement = slots.place(tokens)
    assert placement is not None
    slots.extend(placement.sequence, tokens[placement.cached :])
    slots.release(placement.sequence, keep=True)
    return placement.sequence


def test_a_conversation_goes_on_in_its_slot() -> None:
    slots = SlotCache(size=512, slots=3)
    first = ended(slots, LONG)
    ended(slots, OTHER)
    placement = slots.place([*LONG, 1, 2])
    assert placement is not None
    assert (placement.sequence, placement.cached, placement.operations) == (first, len(LONG), ())


def test_the_contents_name_the_use_of_each_slot() -> None:
    slots = SlotCache(size=512, slots=3)
    ended(slots, LONG)
    running = slots.place(OTHER[:50])
    assert running is not None
    slots.extend(running.sequence, OTHER[:50])
    assert [(one.use, one.tokens) for one in slots.contents] == [("conversation", 200), ("request", 50)]


def test_other_conversations_go_into_the_slot_unused_for_longest() -> None:
    slots = SlotCache(size=512, slots=3)
    first = ended(slots, LONG)
    second = ended(slots, OTHER)
    third = ended(slots, list(range(800, 900)))
    assert len({first, second, third}) == 3
    placement = slots.place(list(range(900, 950)))
    assert placement is not None
    assert placement.sequence == first
    assert placement.operations == (Trim(sequence=first, length=0),)


def test_a_long_beginning_in_a_busy_slot_is_copied() -> None:
    slots = SlotCache(size=512, slots=2)
    running = slots.place(LONG)
    assert running is not None
    slots.extend(running.sequence, LONG)
    placement = slots.place([*LONG[:100], 1, 2])
    assert placement is not None
    assert placement.cached == 100
    target = placement.sequence
    copy = Copy(source=running.sequence, target=target, length=100)
    assert placement.operations == (Trim(sequence=target, length=0), copy)
    assert slots.tokens(target) == LONG[:100]


def test_a_short_beginning_is_computed_again() -> None:
    slots = SlotCache(size=512, slots=2)
    running = slots.place(LONG)
    assert running is not None
    slots.extend(running.sequence, LONG)
    placement = slots.place([*LONG[: WORTH_A_COPY - 1], 1, 2])
    assert placement is not None
    assert placement.cached == 0


def test_what_another_conversation_holds_is_copied_rather_than_overwritten() -> None:
    """Two conversations begin alike: the second gets a copy, as long as there is an older slot to put it."""
    slots = SlotCache(size=512, slots=2)
    first = ended(slots, LONG)
    placement = slots.place([*LONG[:100], 1, 2])
    assert placement is not None
    assert placement.sequence != first
    assert placement.cached == 100
    assert slots.tokens(first) == LONG


def test_the_last_slot_is_overwritten_and_keeps_the_common_beginning() -> None:
    slots = SlotCache(size=512, slots=1)
    ended(slots, LONG)
    placement = slots.place([*LONG[:50], 1, 2])
    assert placement is not None
    assert placement.cached == 50
    assert placement.operations == (Trim(sequence=0, length=50),)


def test_a_request_that_keeps_nothing_leaves_an_empty_slot_to_be_taken_first() -> None:
    slots = SlotCache(size=512, slots=2)
    placement = slots.place(LONG)
    assert placement is not None
    slots.extend(placement.sequence, LONG)
    assert slots.release(placement.sequence, keep=False) == (Trim(sequence=placement.sequence, length=0),)
    again = slots.place(OTHER)
    assert again is not None
    assert again.sequence == placement.sequence


def test_sharing_can_be_declined() -> None:
    slots = SlotCache(size=512, slots=1)
    ended(slots, LONG)
    placement = slots.place(LONG, share=False)
    assert placement is not None
    assert placement.cached == 0
    assert slots.used == 0


def test_everything_idle_can_be_forgotten_at_once() -> None:
    slots = SlotCache(size=512, slots=3)
    ended(slots, LONG)
    running = slots.place(OTHER)
    assert running is not None
    slots.extend(running.sequence, OTHER)
    assert slots.make_room(100) == ()
    slots.make_room(slots.cells)
    assert slots.used == len(OTHER)


def test_fewer_cells_than_those_of_all_slots_leave_the_latest_conversations() -> None:
    slots = SlotCache(size=512, slots=4, cells=512)
    first, second = ended(slots, LONG), ended(slots, OTHER)
    running = slots.place(list(range(800, 900)))
    assert running is not None
    assert slots.make_room(112) == ()
    assert slots.make_room(113) == (Trim(sequence=first, length=0),)
    slots.extend(running.sequence, list(range(800, 900)))
    assert (slots.used, slots.held, slots.own(second), slots.shared(LONG)) == (300, 100, 200, 0)
    assert slots.make_room(512) == (Trim(sequence=second, length=0),), "a running request keeps its cells"


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=200)


class Story(RuleBasedStateMachine):
    """The account agrees with a plain memory that carries out the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, list[tuple[int, Scales]]] = {}
        self.running: dict[int, list[int]] = {}
        self.scales: dict[int, Scales] = {}

    @initialize(slots=st.integers(1, 4))
    def open(self, slots: int) -> None:
        self.count = slots
        self.cache = SlotCache(size=512, slots=slots)

    @rule(tokens=prompts, share=st.booleans(), scales=st.sampled_from([(), (1.0,), (0.5,)]))
    def begin(self, tokens: list[int], share: bool, scales: Scales) -> None:
        placement = self.cache.place(tokens, share=share, scales=scales)
        if placement is None:
            assert len(self.running) == self.count
            return
        assert placement.sequence not in self.running
        self.apply(placement.operations)
        assert self.held.get(placement.sequence, []) == [(t, scales) for t in tokens[: placement.cached]]
        assert placement.cached < len(tokens)
        self.running[placement.sequence] = tokens[: placement.cached]
        self.scales[placement.sequence] = scales
        self.grow(placement.sequence, tokens[placement.cached :])

    def apply(self, operations: tuple[Copy | Trim, ...]) -> None:
        for operation in operations:
            match operation:
                case Copy(source=source, target=target, length=length):
                    assert not self.held.get(target)
                    self.held[target] = self.held[source][:length]
                case Trim(sequence=sequence, length=length):
                    self.held[sequence] = self.held.get(sequence, [])[:length]

    def grow(self, sequence: int, tokens: list[int]) -> None:
        self.cache.extend(sequence, tokens)
        self.held.setdefault(sequence, []).extend((token, self.scales[sequence]) for token in tokens)
        self.running[sequence] = self.running[sequence] + tokens

    @rule(pick=st.integers(0, 3), keep=st.booleans(), length=st.integers(0, 200))
    def end(self, pick: int, keep: bool, length: int) -> None:
        if self.running:
            sequence = sorted(self.running)[pick % len(self.running)]
            del self.running[sequence]
            self.cache.cut(sequence, length)
            self.apply((Trim(sequence=sequence, length=length),))
            self.apply(self.cache.release(sequence, keep=keep))

    @invariant()
    def the_account_is_right(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.busy == len(self.running)
            for slot in range(self.count):
                assert self.cache.tokens(slot) == [token for token, _ in self.held.get(slot, [])]


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


TOKENS = st.lists(st.integers(1, 2), max_size=6)


@given(st.lists(st.tuples(TOKENS, st.sampled_from([(), (0.5,)])), min_size=1, max_size=5), TOKENS)
def test_the_match_is_the_longest_prefix_that_a_slot_has(
    held: list[tuple[list[int], Scales]], prompt: list[int]
) -> None:
    slots = SlotCache(size=8, slots=len(held))
    for tokens, scales in held:
        placement = slots.place(tokens, share=False, scales=scales)
        assert placement is not None
        slots.extend(placement.sequence, tokens)
    slot, length = slots.match(prompt)
    lengths = [common_length(tokens, prompt) if scales == () else 0 for tokens, scales in held]
    assert length == max(lengths)
    assert (slot < 0) if length == 0 else lengths[slot] == length
