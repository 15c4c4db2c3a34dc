"""Turns of adapter sets: how long a set keeps its turn, which one is next, and that none starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.adapter_turns import TURN_SECONDS, AdapterTurns

A, B, C = (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)
HALF, WHOLE = TURN_SECONDS / 2, TURN_SECONDS


def test_a_set_alone_keeps_its_turn() -> None:
    turns = AdapterTurns(A)
    assert [turns.choose([A, A], step * WHOLE) for step in range(5)] == [A] * 5


def test_a_set_gets_its_turn_at_once_when_the_current_one_has_nothing_to_decode() -> None:
    turns = AdapterTurns(A)
    assert turns.choose([A], 0.0) == A
    assert turns.choose([B], HALF) == B
    assert turns.choose([], 2 * WHOLE) == B


def test_a_set_keeps_its_turn_for_some_decodes() -> None:
    turns = AdapterTurns(A)
    turns.choose([B], 0.0)
    times = [HALF, 1.1 * WHOLE, 1.6 * WHOLE, 2.2 * WHOLE]
    assert [turns.choose([A, B], now) for now in times] == [B, A, A, B]


def test_the_set_that_waits_for_longest_is_next() -> None:
    turns = AdapterTurns(A)
    times = [step * 2 * WHOLE for step in range(1, 7)]
    assert [turns.choose([A, B, C], now) for now in times] == [B, C, A, B, C, A]


def test_a_stream_of_new_sets_does_not_overtake_one_that_waits() -> None:
    turns = AdapterTurns(A)
    chosen = [turns.choose([A, (float(step),), (float(step + 1),)], step * 2 * WHOLE) for step in range(2, 12)]
    assert chosen.count(A) >= 3


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from([A, B, C, (), (2.0,)]), min_size=1, max_size=8), st.floats(0.001, 0.3)),
        max_size=60,
    )
)
def test_a_set_that_waits_gets_a_turn_within_the_turns_of_the_others(steps: list[tuple[list[object], float]]) -> None:
    turns = AdapterTurns(A)
    now = 0.0
    waited: dict[object, list[object]] = {}
    for wanted, seconds in steps:
        chosen = turns.choose(wanted, now)  # type: ignore[arg-type]
        assert chosen in wanted
        waited = {scales: [*waited.get(scales, []), chosen] for scales in wanted if scales != chosen}
        for others in waited.values():
            turns_of_others = [a for a, b in zip(others, [None, *others], strict=False) if a != b]
            assert len(turns_of_others) <= 5
        now += seconds
