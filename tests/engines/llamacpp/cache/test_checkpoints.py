"""Which checkpoints are kept, where they are taken, and how far apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mullama.engines.llamacpp.cache.checkpoints import (
    LEAST_STEP,
    OPENING,
    WORTH_KEEPING,
    Checkpoint,
    Checkpoints,
    spacing,
    stops,
)

CHAT = list(range(1000))
OTHER = list(range(5000, 6000))
END = -1


def taken(checkpoints: Checkpoints, sequence: int, tokens: list[int], size: int = 10) -> bool:
    """Take a checkpoint as the engine does; return False if it is not wanted."""
    if not checkpoints.wants(sequence, tokens, size):
        return False
    checkpoints.add(sequence, tokens, bytes(size))
    return True


def lengths(checkpoints: Checkpoints) -> list[int]:
    return [c.length for c in checkpoints.kept]


def test_the_longest_one_with_the_same_tokens_is_found() -> None:
    checkpoints = Checkpoints(100)
    for length in (100, 300, 200):
        taken(checkpoints, 1, CHAT[:length])
    taken(checkpoints, 2, OTHER[:500])

    def found(tokens: list[int], limit: int) -> int:
        checkpoint = checkpoints.find(tokens, limit)
        return checkpoint.length if checkpoint else 0

    assert found(CHAT, 1000) == 300
    assert found(CHAT, 299) == 200
    assert found(CHAT[:250], 1000) == 200
    assert found([*CHAT[:150], 7, *CHAT[151:]], 1000) == 100
    assert found(CHAT[:99], 1000) == 0
    assert found(OTHER, 1000) == 500


def test_one_of_other_adapter_scales_is_not_found() -> None:
    checkpoints = Checkpoints(100)
    checkpoints.add(1, CHAT[:100], bytes(10), (0.5,))
    assert checkpoints.find(CHAT, 1000) is None
    assert checkpoints.find(CHAT, 1000, (0.5,)) is checkpoints.kept[0]
    assert not checkpoints.wants(2, CHAT[:100], 10, (0.5,))
    assert checkpoints.wants(2, CHAT[:100], 10, (1.0,))


def test_a_checkpoint_near_another_one_is_not_wanted() -> None:
    checkpoints = Checkpoints(100)
    assert not taken(checkpoints, 1, CHAT[: WORTH_KEEPING - 1])
    assert taken(checkpoints, 1, CHAT[:WORTH_KEEPING])
    assert not taken(checkpoints, 2, CHAT[:WORTH_KEEPING])
    assert not taken(checkpoints, 2, CHAT[: 2 * WORTH_KEEPING - 1])
    assert taken(checkpoints, 2, CHAT[: 2 * WORTH_KEEPING])


def test_nothing_is_kept_without_memory_for_it() -> None:
    assert not taken(Checkpoints(), 1, CHAT)
    assert not taken(Checkpoints(9), 1, CHAT)
    assert taken(Checkpoints(10), 1, CHAT)


def test_an_old_conversation_is_thinned_out_before_it_is_lost() -> None:
    checkpoints = Checkpoints(60)
    for length in (200, 300, 700):
        taken(checkpoints, 1, CHAT[:length])
    checkpoints.release(1)
    for length in range(100, 1000, 100):
        taken(checkpoints, 2, OTHER[:length])
    kept = [c.length for c in checkpoints.kept if c.tokens[0] == CHAT[0]]
    assert 300 not in kept, "200 tokens back there is another one"
    assert 700 in kept
    assert lengths(checkpoints)[-1] == 900


def test_a_large_one_goes_before_small_ones_that_save_as_much() -> None:
    checkpoints = Checkpoints(100)
    taken(checkpoints, 1, CHAT[:500], size=60)
    taken(checkpoints, 2, OTHER[:500], size=20)
    checkpoints.release(1)
    checkpoints.release(2)
    taken(checkpoints, 3, [9] * 500, size=40)
    assert [c.size for c in checkpoints.kept] == [20, 40]


def test_a_running_request_keeps_the_one_that_it_needs() -> None:
    checkpoints = Checkpoints(20)
    taken(checkpoints, 1, CHAT[:100])
    taken(checkpoints, 2, OTHER[:100])
    assert not taken(checkpoints, 3, [9] * 900), "two others hold all of the memory"
    assert taken(checkpoints, 1, CHAT[:200]), "in place of its own"
    assert lengths(checkpoints) == [100, 200]
    assert checkpoints.kept[0].tokens == OTHER[:100]
    checkpoints.release(2)
    assert taken(checkpoints, 3, [9] * 900)
    assert lengths(checkpoints) == [200, 900]


def test_useless_ones_are_dropped_unless_a_request_holds_them() -> None:
    checkpoints = Checkpoints(100)
    taken(checkpoints, 1, CHAT[:100])
    taken(checkpoints, 2, OTHER[:100])
    checkpoints.release(1)
    checkpoints.forget(lambda _checkpoint: True)
    assert [c.tokens for c in checkpoints.kept] == [OTHER[:100]]
    checkpoints.clear()
    assert (checkpoints.kept, checkpoints.bytes) == ((), 0)


@pytest.mark.parametrize(
    ("prompt", "cached", "declared", "expected"),
    [
        ([7] * 500, 0, (), [499 - OPENING]),
        ([7] * 50, 0, (), []),
        ([*[7] * 300, END, 5, 6], 0, (), [301]),
        ([*[7] * 300, END, 5, 6], 301, (), []),
        ([*[7] * 200, END, *[7] * 300, END, 5, 6], 0, (), [201, 502]),
        ([*[7] * 200, END, *[7] * 300, END, 5, 6], 190, (), [502]),
        ([*[7] * 200, END, *[7] * 300, END, 5, 6], 0, (120, 201), [120, 201, 502]),
        ([*[7] * 300, END], 0, (), [300 - OPENING]),
        ([*[7] * 300, END, *[7] * 100], 0, (), [400 - OPENING]),
    ],
    ids=["text", "short", "message", "in memory", "two", "last only", "declared", "ends", "begun answer"],
)
def test_a_prompt_stops_where_its_answer_and_its_last_message_begin(
    prompt: list[int], cached: int, declared: tuple[int, ...], expected: list[int]
) -> None:
    assert stops(prompt, cached, {END}, declared) == expected


@given(st.lists(st.integers(-1, 1), max_size=300), st.integers(0, 300), st.lists(st.integers(1, 300), max_size=3))
def test_stops_are_inside_of_what_is_to_be_computed(prompt: list[int], cached: int, declared: list[int]) -> None:
    found = stops(prompt, cached, {END}, declared)
    assert found == sorted(set(found))
    assert all(cached < n < len(prompt) for n in found)


@pytest.mark.parametrize(
    ("size", "most", "longest", "token_seconds", "tokens"),
    [
        (0, 100, 8192, None, LEAST_STEP),
        (2**20, 256 * 2**20, 8192, None, LEAST_STEP),
        (8 * 2**20, 256 * 2**20, 32768, None, 2048),
        (300 * 2**20, 256 * 2**20, 8192, None, 8192),
        (8_000_000, 256 * 2**20, 8192, 1e-3, LEAST_STEP),
        (80_000_000, 2**40, 8192, 1e-3, 2000),
    ],
)
def test_checkpoints_are_as_far_apart_as_their_bytes_and_their_time_want(
    size: int, most: int, longest: int, token_seconds: float | None, tokens: int
) -> None:
    assert spacing(size, most, longest, token_seconds) == tokens


CHATS = st.tuples(st.integers(0, 2), st.integers(1, 9)).map(lambda c: [c[0]] * (c[1] * WORTH_KEEPING))


class Story(RuleBasedStateMachine):
    """Requests take, use and release checkpoints in any order. A second account of the same story agrees."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts = [Checkpoints(50), Checkpoints(50)]
        self.held: list[dict[int, Checkpoint]] = [{}, {}]

    @rule(sequence=st.integers(0, 3), tokens=CHATS, size=st.integers(1, 60))
    def take(self, sequence: int, tokens: list[int], size: int) -> None:
        for account, held in zip(self.accounts, self.held, strict=True):
            if taken(account, sequence, tokens, size):
                assert account.kept[-1].tokens == tokens
                held[sequence] = account.kept[-1]

    @rule(sequence=st.integers(0, 3), tokens=CHATS)
    def use(self, sequence: int, tokens: list[int]) -> None:
        for account, held in zip(self.accounts, self.held, strict=True):
            if found := account.find(tokens, len(tokens)):
                assert found.tokens == tokens[: found.length]
                account.hold(sequence, found)
                held[sequence] = found

    @rule(sequence=st.integers(0, 3))
    def end(self, sequence: int) -> None:
        for account, held in zip(self.accounts, self.held, strict=True):
            account.release(sequence)
            held.pop(sequence, None)

    @rule(token=st.integers(0, 2))
    def lose(self, token: int) -> None:
        for account in self.accounts:
            account.forget(lambda checkpoint: checkpoint.tokens[0] == token)

    @invariant()
    def the_bound_and_the_holders_are_kept(self) -> None:
        for account, held in zip(self.accounts, self.held, strict=True):
            assert account.bytes == sum(c.size for c in account.kept) <= account.most_bytes
            assert all(c in account.kept for c in held.values())

    @invariant()
    def the_same_story_ends_the_same(self) -> None:
        one, other = ([(c.tokens, c.size) for c in account.kept] for account in self.accounts)
        assert one == other


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
