"""Plans of decodes and the pace, as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.base import COALESCE_SECONDS
from mullama.engines.llamacpp.batcher import LONGEST_STALL, SMALLEST_SLICE, Pace, PendingTokens, Slice, plan
from mullama.struct import replace


def running(key: int, tokens: int = 1, rows: int = 1) -> PendingTokens:
    return PendingTokens(key=key, tokens=tokens, running=True, rows=rows)


def prompt(key: int, tokens: int, *, each: bool = False, late: bool = True) -> PendingTokens:
    return PendingTokens(key=key, tokens=tokens, running=False, all_logits=each, late=late)


def part(key: int, count: int, rows: int, *, last: bool) -> Slice:
    return Slice(key=key, count=count, rows=rows, last=last)


@pytest.mark.parametrize(
    ("requests", "room", "rows", "prompt_room", "expected"),
    [
        pytest.param([], 8, 8, 8, [], id="nothing to do"),
        pytest.param([running(1), running(2)], 8, 8, 8, [part(1, 1, 1, last=True), part(2, 1, 1, last=True)],
                     id="turns"),
        pytest.param([prompt(1, 5)], 8, 8, 8, [part(1, 5, 1, last=True)], id="a prompt that fits"),
        pytest.param([prompt(1, 50)], 8, 8, 8, [part(1, 8, 0, last=False)], id="a prompt that does not"),
        pytest.param([prompt(1, 50), running(2)], 8, 8, 4, [part(2, 1, 1, last=True), part(1, 4, 0, last=False)],
                     id="a running request before an older prompt, the prompt in a slice"),
        pytest.param([prompt(1, 50), prompt(2, 30), prompt(3, 2)], 16, 8, 16,
                     [part(1, 8, 0, last=False), part(2, 6, 0, last=False), part(3, 2, 1, last=True)],
                     id="half for the oldest, the other half for the shortest first"),
        pytest.param([prompt(1, 50), prompt(2, 3)], 16, 8, 16, [part(1, 13, 0, last=False), part(2, 3, 1, last=True)],
                     id="what the others leave goes to the oldest"),
        pytest.param([prompt(1, 12), prompt(2, 12), prompt(3, 12)], 16, 8, 16,
                     [part(1, 12, 1, last=True), part(2, 4, 0, last=False)],
                     id="one after the other where none is shorter"),
        pytest.param([running(1), prompt(2, 50, late=False), prompt(3, 50)], 32, 8, 4,
                     [part(1, 1, 1, last=True), part(2, 31, 0, last=False)], id="a prompt of the same burst"),
        pytest.param([running(1), prompt(2, 9, late=False), prompt(3, 50)], 32, 8, 4,
                     [part(1, 1, 1, last=True), part(2, 9, 1, last=True), part(3, 4, 0, last=False)],
                     id="and a late one after it"),
        pytest.param([running(1, tokens=6)], 8, 8, 8, [part(1, 6, 1, last=True)], id="forced tokens at once"),
        pytest.param([running(1, tokens=5, rows=5)], 8, 8, 8, [part(1, 5, 5, last=True)], id="guesses"),
        pytest.param([prompt(1, 20, each=True)], 16, 4, 16, [part(1, 4, 4, last=False)], id="logprobs of a prompt"),
        pytest.param([prompt(1, 4), prompt(2, 4)], 16, 1, 16, [part(1, 4, 1, last=True), part(2, 3, 0, last=False)],
                     id="no row left for a second end"),
        pytest.param([running(1, tokens=40)], 8, 8, 8, [part(1, 8, 0, last=False)], id="more forced than fit"),
    ],
)  # fmt: skip
def test_the_plan(requests: list[PendingTokens], room: int, rows: int, prompt_room: int, expected: list[Slice]) -> None:
    assert list(plan(requests, room=room, rows=rows, prompt_room=prompt_room)) == expected


waiting = st.builds(
    PendingTokens,
    key=st.integers(0, 10**6),
    tokens=st.integers(0, 300),
    running=st.booleans(),
    rows=st.integers(1, 4),
    all_logits=st.booleans(),
    late=st.booleans(),
).filter(lambda r: r.rows <= r.tokens or r.tokens == 0)
requests_of = st.lists(waiting, max_size=12, unique_by=lambda r: r.key)


@pytest.mark.parametrize(
    ("tokens", "room", "expected"),
    [
        (512, 512, [512]),
        (513, 512, [449, 64]),
        (560, 512, [496, 64]),
        (576, 512, [512, 64]),
        (1030, 512, [512, 454, 64]),
        (129, 128, [65, 64]),
        (100, 96, [96, 4]),  # two useful slices do not fit
    ],
)
def test_no_small_rest_of_a_prompt_is_left(tokens: int, room: int, expected: list[int]) -> None:
    counts: list[int] = []
    while left := tokens - sum(counts):
        (found,) = plan([prompt(1, left, late=False)], room=room, rows=8, prompt_room=room)
        counts.append(found.count)
        assert found.last is (sum(counts) == tokens)
        assert found.rows == found.last
    assert counts == expected


def test_rows_of_logits_bound_the_parts_of_a_prompt_with_logprobs() -> None:
    (found,) = plan([prompt(1, 520, each=True)], room=512, rows=512, prompt_room=512)
    assert found.count == 512


@given(requests_of, st.integers(1, 256), st.integers(1, 40), st.integers(0, 256))
def test_a_plan_keeps_to_its_bounds(requests: list[PendingTokens], room: int, rows: int, prompt_room: int) -> None:
    slices = plan(requests, room=room, rows=rows, prompt_room=prompt_room)
    by_key = {r.key: r for r in requests}
    assert sum(s.count for s in slices) <= room
    assert sum(s.rows for s in slices) <= rows
    late = [s.count for s in slices if not by_key[s.key].running and by_key[s.key].late]
    assert sum(late) <= prompt_room
    assert len({s.key for s in slices}) == len(slices)
    for chosen in slices:
        request = by_key[chosen.key]
        assert 0 < chosen.count <= request.tokens
        assert chosen.last == (chosen.count == request.tokens)
        if request.all_logits:
            assert chosen.rows == chosen.count
        else:
            assert chosen.rows == (request.rows if chosen.last else 0)


@given(requests_of, st.integers(8, 64))
def test_repeating_the_plan_serves_everybody(requests: list[PendingTokens], room: int) -> None:
    """Whoever waits is done after as many steps as there are tokens, even beside many others."""
    left = {r.key: r for r in requests if r.tokens}
    steps = 0
    while left:
        slices = plan(left.values(), room=room, rows=8, prompt_room=room)
        assert slices
        for chosen in slices:
            old = left.pop(chosen.key)
            if not chosen.last:
                left[chosen.key] = replace(old, tokens=old.tokens - chosen.count)
        left = {r.key: left[r.key] for r in requests if r.key in left}
        steps += 1
        assert steps <= sum(r.tokens for r in requests)


def test_a_slice_beside_running_requests_takes_no_longer_than_a_stall_may() -> None:
    pace = Pace()
    for _ in range(20):
        pace.observe(running=4, prompt=0, seconds=0.05)
        pace.observe(running=0, prompt=512, seconds=0.512)
    tokens = pace.prompt_room(512)
    assert SMALLEST_SLICE <= tokens <= LONGEST_STALL / 0.001


def test_a_slow_machine_still_gets_a_useful_slice_and_a_fast_one_the_whole_batch() -> None:
    slow, fast = Pace(), Pace()
    for _ in range(20):
        slow.observe(running=0, prompt=64, seconds=6.4)
        fast.observe(running=0, prompt=512, seconds=0.01)
    assert slow.prompt_room(512) == SMALLEST_SLICE
    assert fast.prompt_room(512) == 512


def test_a_slice_never_exceeds_the_room() -> None:
    assert Pace().prompt_room(16) == 16


def test_prompts_wait_for_others_in_proportion_to_what_they_take() -> None:
    pace = Pace()
    assert 0 < pace.batch_delay(10**6) == pace.batch_delay(64) < COALESCE_SECONDS, "nothing was measured yet"
    assert pace.batch_delay(8) == 0.0
    pace.observe(running=0, prompt=64, seconds=0.32)
    assert pace.batch_delay(64) == pytest.approx(0.0128)
    assert pace.batch_delay(10**6) == COALESCE_SECONDS


def test_a_decode_is_repeated_while_little_of_it_is_done() -> None:
    pace = Pace()
    assert pace.restart_window(64) == 0.0, "nothing was measured yet"
    pace.observe(running=0, prompt=64, seconds=0.032)
    assert pace.restart_window(64) == pytest.approx(0.004)
    assert pace.restart_window(10**6) == COALESCE_SECONDS


def measured(**seconds: float) -> Pace:
    """A pace that has seen decodes of one, two, three … requests."""
    pace = Pace()
    for _ in range(30):
        for number, value in enumerate(seconds.values(), start=1):
            pace.observe(running=number, prompt=0, seconds=value)
    return pace


@pytest.mark.parametrize(
    ("times", "rows", "expected"),
    [
        ({"one": 0.016, "two": 0.044}, 2, True),
        ({"one": 0.016, "two": 0.020}, 2, False),
        ({"one": 0.016, "two": 0.044, "three": 0.048}, 3, False),
        ({"one": 0.016, "two": 0.044, "three": 0.060}, 3, True),
        ({"one": 0.016}, 1, False),
        ({"one": 0.001, "two": 1, "three": 1, "four": 1, "five": 1}, 5, False),
    ],
)
def test_few_requests_are_decoded_one_by_one_where_that_is_faster(
    times: dict[str, float], rows: int, expected: bool
) -> None:
    assert measured(**times).faster_singly(rows) is expected


def test_what_was_never_measured_is_tried() -> None:
    pace = Pace()
    assert pace.faster_singly(2)
    pace.observe(running=1, prompt=0, seconds=0.01)
    assert not pace.faster_singly(2)
    pace.observe(running=2, prompt=0, seconds=0.03)
    assert pace.faster_singly(2)


def test_a_choice_is_measured_again_from_time_to_time() -> None:
    pace = measured(one=0.016, two=0.044)
    assert {pace.faster_singly(2) for _ in range(300)} == {True, False}
    for _ in range(50):
        pace.observe(running=2, prompt=0, seconds=0.020)
    assert not any(pace.faster_singly(2) for _ in range(300))
