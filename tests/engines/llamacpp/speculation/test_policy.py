"""The policy of guesses: how many pay, when a request is paused, what a decode of some length takes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.engines.llamacpp.decode_cost import DecodeCost
from mullama.engines.llamacpp.speculation.policy import LONGEST, Chances, best_length, expected

# Processor seconds of a decode by its tokens, relative to one: a 135 M model in Q4_1 on one core, and a large GPU.
CORE = {1: 1.0, 2: 1.77, 4: 3.2, 8: 5.6, 16: 10.1, 32: 17.9, 64: 25.7}
GPU = {1: 1.0, 64: 1.3}


def cost(table: dict[int, float], *, without: tuple[int, ...] = ()) -> DecodeCost:
    made = DecodeCost()
    for tokens, seconds in table.items():
        if tokens not in without:
            made.observe(answers=tokens, prompts=0, seconds=seconds)
    return made


def length(chance: float, table: dict[int, float], most: int = LONGEST, *, others: int = 0, each: float = 0.0) -> int:
    seconds = cost(table).seconds
    return best_length(chance, most, others=others, tokens=1 + others, seconds=seconds, each=each)


@pytest.mark.parametrize(
    ("chance", "table", "most", "guesses"),
    [
        (0.0, GPU, 63, 0),
        (0.3, CORE, 63, 0),  # prose
        (0.8, CORE, 63, 0),  # two tokens cost nearly twice as much as one
        (0.99, CORE, 63, 63),  # a copied text
        (1.0, CORE, 63, 63),
        (0.99, CORE, 10, 10),
        (0.3, GPU, 63, 3),
        (0.9, GPU, 63, 31),
        (0.9, GPU, 2, 2),
        (0.9, GPU, 0, 0),
    ],
)
def test_as_many_guesses_as_pay(chance: float, table: dict[int, float], most: int, guesses: int) -> None:
    assert length(chance, table, most) == guesses


def test_guesses_that_take_time_are_fewer() -> None:
    assert length(0.7, GPU) > length(0.7, GPU, each=0.1) > length(0.7, GPU, each=0.7) == 0


def test_other_requests_make_guesses_cheaper_or_dearer_as_measured() -> None:
    assert length(0.8, {1: 1.0, 8: 1.0, 9: 8.0}, most=7) == 7
    assert length(0.8, {1: 1.0, 8: 1.0, 9: 8.0}, most=7, others=7) == 0


@given(st.floats(0, 1), st.integers(0, 70))
def test_the_expectation_is_that_of_its_definition(chance: float, guesses: int) -> None:
    assert expected(chance, guesses) == pytest.approx(sum(chance**i for i in range(1, guesses + 1)), abs=1e-6)


@given(
    st.floats(0, 1), st.integers(0, 80), st.integers(0, 9), st.floats(0, 1),
    st.dictionaries(st.integers(1, 90), st.floats(1e-3, 10), min_size=1),
)  # fmt: skip
def test_a_choice_is_possible_and_promises_more_than_none(
    chance: float, most: int, others: int, each: float, table: dict[int, float]
) -> None:
    seconds = cost(table).seconds
    chosen = best_length(chance, most, others=others, tokens=1 + others, seconds=seconds, each=each)
    assert 0 <= chosen <= min(most, LONGEST)
    if chosen:
        with_guesses = (1 + others + expected(chance, chosen)) / (seconds(1 + others + chosen) + each * chosen)
        assert with_guesses > (1 + others) / seconds(1 + others)


def test_a_chance_moves_from_its_prior_to_what_is_measured() -> None:
    chances = Chances()
    assert [round(chances.chance(n), 2) for n in (0, 3, 4, 6, 12, 24, 32)] == [0.45, 0.45, 0.55, 0.7, 0.85, 0.95, 0.95]
    for _ in range(40):
        chances.record(3, guessed=5, accepted=5, length=0)
        chances.record(30, guessed=5, accepted=1, length=0)
    assert chances.chance(3) > 0.95
    assert chances.chance(30) < 0.55
    assert chances.chance(5) == 0.55, "another class keeps its own"


def test_failures_pause_a_request_ever_longer_and_a_success_ends_that() -> None:
    chances, length, pauses = Chances(), 0, []
    for _ in range(14):
        chances.record(3, guessed=3, accepted=0, length=length)
        if chances.paused(length):
            resume = next(n for n in range(length, length + 5000) if not chances.paused(n))
            pauses.append(resume - length)
            length = resume
    assert pauses == [32, 64, 128, 256, 512, 1024]
    chances.record(3, guessed=3, accepted=1, length=length)
    assert not chances.paused(length)
    for _ in range(4):
        chances.record(3, guessed=3, accepted=0, length=length)
    assert chances.paused(length + 31)
    assert not chances.paused(length + 32)


@given(st.integers(0, 2**32))
def test_a_request_that_is_accepted_more_than_it_fails_is_never_paused(seed: int) -> None:
    chances, dice = Chances(), random.Random(seed)
    for _ in range(200):
        chances.record(3, guessed=2, accepted=1, length=0)
        if dice.random() < 0.7:
            chances.record(3, guessed=2, accepted=0, length=0)
        assert not chances.paused(0)


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [(1, 1.0), (8, 5.6), (3, 2.485), (40, 19.85), (128, 41.3)],
)
def test_a_duration_is_measured_or_on_the_line_of_the_nearest_two(tokens: int, seconds: float) -> None:
    assert cost(CORE).seconds(tokens) == pytest.approx(seconds)


def test_the_speed_of_prompts_stands_for_large_decodes() -> None:
    made = cost({1: 1.0})
    assert made.seconds(64) == pytest.approx(3.52), "four hundredths more for each token"
    made.observe(answers=0, prompts=512, seconds=512 * 0.4)
    assert made.seconds(64) == pytest.approx(25.6)
    assert made.seconds(1) == 1.0


def test_one_slow_decode_counts_little_and_old_ones_are_forgotten() -> None:
    made = cost({1: 1.0, 4: 2.0})
    made.observe(answers=1, prompts=0, seconds=11.0)
    assert made.seconds(1) == pytest.approx(3.0)
    made.observe(answers=1, prompts=0, seconds=1.0)
    assert made.seconds(1) == pytest.approx(2.0)
    for _ in range(5000):
        made.observe(answers=1, prompts=0, seconds=1.0)
    assert made.seconds(4) == pytest.approx(1.12)
