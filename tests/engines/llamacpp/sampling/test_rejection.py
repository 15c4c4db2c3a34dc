"""Rejection sampling: only tokens that the cuts keep, with their probabilities."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.sampler import Candidates
from mullama.engines.llamacpp.sampling.candidates import likely, nucleus
from mullama.engines.llamacpp.sampling.rejection import COLDEST, RejectionSampler, in_nucleus
from mullama.engines.llamacpp.sampling.sampler import SHORTCUTS, Sampler, SamplerPlan, Shortcut
from tests.engines.engine_driver import sampling


def row_of(seed: int, size: int, spread: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def shares(draw: RejectionSampler, row: np.ndarray, count: int = 8000) -> list[float]:
    """How often each token is drawn, of draws that succeed."""
    source = random.Random(7).random
    found = [index for _ in range(count) if (index := draw(row, source)) is not None]
    return [found.count(token) / len(found) for token in range(len(row))]


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(0.1, 5))
def test_a_token_is_in_the_nucleus_of_the_definition(p: float, seed: int, size: int, spread: float) -> None:
    row = row_of(seed, size, spread)
    inside = {index for index in range(size) if in_nucleus(row, index, p)}
    assert len(inside ^ set(nucleus(row, p, 0).tolist())) <= 1, "the sum may round to either side"


def test_a_nucleus_of_equal_tokens_is_no_larger_than_it_must_be() -> None:
    row = np.zeros(1000, np.float32)
    assert [index for index in range(1000) if in_nucleus(row, index, 0.5)] == list(range(500))


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 3000), st.floats(0.1, 5),
    st.floats(0.05, 5), st.floats(0.1, 1), st.floats(0, 1),
)  # fmt: skip
def test_what_is_drawn_was_left_by_both_cuts(
    seed: int, size: int, spread: float, temperature: float, p: float, ratio: float
) -> None:
    row = row_of(seed, size, spread)
    left = {index for index in range(size) if p >= 1 or in_nucleus(row, index, p)}
    if ratio > 0:
        left &= set(likely(row, ratio, 0).tolist())
    source = random.Random(seed).random
    for _ in range(20):
        index = RejectionSampler(temperature=temperature, p=p, ratio=ratio)(row, source)
        assert index is None or index in left


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (RejectionSampler(temperature=1.0, p=1.0, ratio=0.0), [0.5, 0.3, 0.15, 0.05]),
        (RejectionSampler(temperature=1.0, p=0.75, ratio=0.0), [0.625, 0.375, 0, 0]),
        (RejectionSampler(temperature=1.0, p=1.0, ratio=0.25), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (RejectionSampler(temperature=1.0, p=0.75, ratio=0.25), [0.625, 0.375, 0, 0]),
        (RejectionSampler(temperature=1.0, p=0.1, ratio=0.0), [1, 0, 0, 0]),
        (RejectionSampler(temperature=1.0, p=1.0, ratio=7.0), [1, 0, 0, 0]),
        # The cuts look at the probabilities before the temperature, as llama.cpp's samplers in their usual order.
        (RejectionSampler(temperature=0.5, p=0.75, ratio=0.0), [0.25 / 0.34, 0.09 / 0.34, 0, 0]),
        (RejectionSampler(temperature=COLDEST, p=1.0, ratio=0.01), [1, 0, 0, 0]),
        (RejectionSampler(temperature=1e6, p=1.0, ratio=0.01), [0.25, 0.25, 0.25, 0.25]),
    ],
    ids=str,
)
def test_draws_follow_what_is_left_of_the_probabilities(draw: RejectionSampler, expected: list[float]) -> None:
    found = shares(draw, logits(0.5, 0.3, 0.15, 0.05))
    assert found == pytest.approx(expected, abs=0.02)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


def test_every_part_of_a_large_vocabulary_is_reached() -> None:
    row = np.full(5000, -math.inf, np.float32)
    alive = [0, 511, 512, 1023, 2600, 4999]
    row[alive] = 0
    found = shares(RejectionSampler(temperature=0.7, p=1.0, ratio=0.0), row, 3000)
    assert [token for token, share in enumerate(found) if share] == alive
    assert min(found[token] for token in alive) > 0.13


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
def test_the_ends_of_the_random_numbers_are_no_forbidden_token(number: float) -> None:
    row = np.full(2000, -math.inf, np.float32)
    row[700:710] = 0.1
    for p in (0.5, 1.0):
        index = RejectionSampler(temperature=0.3, p=p, ratio=0.0)(row, lambda: number)
        assert index is None or 700 <= index < 710


def test_a_draw_that_is_always_cut_away_gives_up() -> None:
    flat = np.zeros(100_000, np.float32)
    flat[5] = 1
    assert RejectionSampler(temperature=1e6, p=1e-6, ratio=0.0)(flat, random.Random(1).random) is None


def test_logits_that_are_no_numbers_draw_nothing() -> None:
    row = np.full(1000, np.nan, np.float32)
    assert RejectionSampler(temperature=1.0, p=0.9, ratio=0.1)(row, random.Random(1).random) is None


# In a sampler


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({"top_k": 0, "top_p": 0.9}, True),
        ({"top_k": 0, "top_p": 1.0, "min_p": 0.1}, True),
        ({"top_k": 0, "top_p": 0.9, "min_p": 0.1, "temperature": 1.0}, True),
        ({"top_k": 0, "top_p": 0.9, "logit_bias": ((4, 3.0),)}, True),
        ({"samplers": ("top_p", "temperature")}, True),
        ({}, False),
        ({"temperature": 0.0}, False),
        ({"top_k": 0, "top_p": 1.0}, False),
        ({"top_k": 0, "top_p": 0.9, "repeat_penalty": 1.1}, False),
        ({"top_k": 0, "top_p": 0.9, "xtc_probability": 0.5, "xtc_threshold": 0.1}, False),
        ({"top_k": 0, "top_p": 0.9, "dynatemp_range": 0.5}, False),
        ({"top_k": 0, "top_p": 0.9, "mirostat": 2}, False),
        ({"top_k": 0, "top_p": 0.9, "min_keep": 3}, False),
        ({"top_k": 0, "top_p": 0.0}, False),
        ({"top_k": 0, "top_p": 0.9, "temperature": 1e-30}, False),
        ({"samplers": ("temperature", "top_p")}, False),
        ({"samplers": ("min_p", "top_p", "temperature"), "min_p": 0.1}, False),
    ],
    ids=str,
)
def test_a_draw_does_all_only_where_nothing_comes_between(said: dict[str, Any], used: bool) -> None:
    plan = SamplerPlan(sampling(**said), 512, 1, ())
    assert (plan.draw is not None) is used


@pytest.mark.parametrize(
    "said", [{"top_p": 0.8}, {"top_p": 1.0, "min_p": 0.2}, {"top_p": 0.9, "temperature": 1.4}], ids=str
)
def test_a_sampler_chooses_with_and_without_it_alike(said: dict[str, Any], model: NativeModel) -> None:
    candidates = Candidates(model.vocabulary)
    row = np.full(model.vocabulary, -20, np.float32)
    row[[3, 9, 1000, 3000, 50]] = [2.0, 1.6, 1.5, 0.9, -1.5]

    def chosen(shortcuts: Sequence[Shortcut]) -> dict[int, float]:
        settings = sampling(top_k=0, logit_bias=((9, 0.2),), **said)
        sampler = Sampler(model, candidates, settings, context_size=512, seed=3, forbidden=(50,), shortcuts=shortcuts)
        found = [sampler.choose(row) for _ in range(2000)]
        sampler.close()
        return {token: found.count(token) / len(found) for token in set(found)}

    assert chosen(SHORTCUTS) == pytest.approx(chosen(("candidates", "cut")), abs=0.04)
