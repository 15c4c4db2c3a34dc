"""Runs of media in the prefix tree: shared as a whole, counted in cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.media.run_cache import RunCache
from mullama.engines.llamacpp.media.runs import Numbers, texts_of

NUMBERS = Numbers()
RUNS = [NUMBERS.take(10, 40), NUMBERS.take(9, 9), NUMBERS.take(12, 120)]  # the same for every example
CELLS = {RUNS[0]: 40, RUNS[1]: 9, RUNS[2]: 120}

# A prompt is some words and runs, and ends with words.
PARTS = st.one_of(st.sampled_from(RUNS), st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple))
PROMPTS = st.lists(PARTS, max_size=5).map(lambda parts: [*parts, (1, 2, 1)])


def cells(parts: list[tuple[int, ...]]) -> int:
    return sum(CELLS.get(part, len(part)) for part in parts)


def flat(parts: list[tuple[int, ...]]) -> list[int]:
    return [number for part in parts for number in part]


def test_numbers_are_negative_and_never_given_twice() -> None:
    numbers = Numbers()
    taken = [number for positions in (3, 1, 7) for number in numbers.take(positions, positions)]
    assert len(set(taken)) == 11
    assert max(taken) < -1
    assert texts_of([5, *taken, 0]) == [5, 0]


@given(st.lists(PROMPTS, min_size=1, max_size=6))
def test_prompts_share_whole_runs_and_the_tree_counts_their_cells(prompts: list[list[tuple[int, ...]]]) -> None:
    cache = RunCache(NUMBERS, cells=10_000, running=8, kept=8)
    inside = {number for run in RUNS for number in run[1:]}
    for parts in prompts:
        tokens = flat(parts)
        before = cache.used
        placement = cache.place(tokens)
        assert placement is not None
        length = cache.length(placement.sequence)
        assert length == placement.cached
        assert length == len(tokens) or tokens[length] not in inside  # no run is cut
        cache.extend(placement.sequence, tokens[length:])
        assert cache.tokens(placement.sequence) == tokens
        assert cache.used - before == cells(parts) - NUMBERS.cells_of(tokens[:length])
        cache.release(placement.sequence, keep=True)
    cache.make_room(cache.cells)
    assert cache.used == 0
