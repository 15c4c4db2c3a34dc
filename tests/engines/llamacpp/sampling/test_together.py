"""The rows of one decode, treated together, give what each row gives alone."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.sampler import Candidates
from mullama.engines.llamacpp.first_choices import first_choices
from mullama.engines.llamacpp.sampling import candidates as alone
from mullama.engines.llamacpp.sampling.edits import LogitEdits, Penalties, edited
from mullama.engines.llamacpp.sampling.generator import DrawGenerator
from mullama.engines.llamacpp.sampling.sampler import Sampler, SamplerPlan
from mullama.engines.llamacpp.sampling.together import choose_together
from mullama.engines.llamacpp.sampling.top_draw import TopDraw, draw_together
from mullama.engines.llamacpp.sampling.top_rows import likeliest, log_probabilities, top
from tests.engines.engine_driver import sampling

SIZES = st.sampled_from([5, 40, 300, 3072, 70_000])
SEEDS = st.integers(0, 2**32 - 1)


def table(seed: int, rows: int, size: int, *, ties: bool) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (rows, size))
    return (np.round(logits) if ties else logits).astype(np.float32)


def mask_of(seed: int, size: int, share: float) -> bytes:
    """A mask of whole 32-bit words, with at least one allowed token."""
    rng = np.random.default_rng(seed)
    flags = np.zeros(-(-size // 32) * 32, np.uint8)
    flags[:size] = rng.random(size) < share
    flags[rng.integers(size)] = 1
    return np.packbits(flags, bitorder="little").tobytes()


def masked(row: np.ndarray, mask: bytes | None) -> np.ndarray:
    if mask is None:
        return row
    left = np.full_like(row, -np.inf)
    ids = alone.allowed_ids(mask, len(row))
    left[ids] = row[ids]
    return left


def some_rows(seed: int, rows: int) -> list[int]:
    return [row for row in range(rows) if (seed >> row) & 1] or [rows - 1]


def some_masks(seed: int, count: int, size: int) -> list[bytes | None]:
    shares = (0.0, 0.01, 0.5, 1.0)
    return [None if (seed + n) % 3 else mask_of(seed + n, size, shares[n % 4]) for n in range(count)]


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 9), SIZES, st.booleans())
def test_the_likeliest_tokens_are_those_of_each_row(seed: int, count: int, size: int, ties: bool) -> None:
    logits, rows = table(seed, count, size, ties=ties), some_rows(seed, count)
    masks = some_masks(seed, len(rows), size)
    expected = [int(masked(logits[row], mask).argmax()) for row, mask in zip(rows, masks, strict=True)]
    before = logits.copy()
    assert likeliest(logits, rows, masks) == expected
    assert (logits == before).all(), "llama.cpp's memory is left as it is"


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 9), SIZES, st.integers(1, 60), st.booleans())
def test_the_best_of_the_candidates_are_the_largest_logits(
    seed: int, count: int, size: int, best: int, ties: bool
) -> None:
    logits, rows = table(seed, count, size, ties=ties), some_rows(seed, count)
    masks = some_masks(seed, len(rows), size)
    ids, values = top(logits, rows, masks, best).best(best)
    assert ids.shape == values.shape == (len(rows), min(best, size))
    for row, mask, own, found in zip(rows, masks, ids, values, strict=True):
        allowed = masked(logits[row], mask)
        assert found.tolist() == np.sort(allowed)[::-1][:best].tolist()
        alive = found > -np.inf
        assert allowed[own[alive]].tolist() == found[alive].tolist()
        assert len(set(own[alive].tolist())) == alive.sum()


def test_equal_logits_come_in_the_order_of_their_ids_whatever_else_is_decoded() -> None:
    row = np.zeros(3072, np.float32)
    row[[7, 2000, 9]] = 1
    others = table(1, 5, 3072, ties=True)
    for logits in (row[None], np.concatenate((row[None], others))):
        ids, _ = top(logits, range(len(logits)), [None] * len(logits), 3).best(3)
        assert ids[0].tolist() == [7, 9, 2000]


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 9), SIZES, st.sampled_from([0, 1, 5, 20]))
def test_log_probabilities_are_those_of_each_row(seed: int, count: int, size: int, alternatives: int) -> None:
    logits, rows = table(seed, count, size, ties=False), some_rows(seed, count)
    chosen = [(seed * 7 + row) % size for row in rows]
    found = log_probabilities(logits, rows, chosen, alternatives)
    for row, token, (own, best) in zip(rows, chosen, found, strict=True):
        expected, others = alone.log_probabilities(logits[row], token, alternatives)
        assert own == pytest.approx(expected, abs=1e-5)
        assert [id for id, _ in best] == [id for id, _ in others]
        assert [value for _, value in best] == pytest.approx([value for _, value in others], abs=1e-5)


@given(SEEDS)
def test_the_random_numbers_are_those_of_the_mersenne_twister(seed: int) -> None:
    generator, words = DrawGenerator(seed), np.random.RandomState(seed)
    for _ in range(70):
        low, high = (int(word) for word in words.randint(0, 2**32, 2, dtype=np.uint32))
        assert generator.next() == min((low + high * 2**32) / 2**64, 1 - 2**-53)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from([5, 300, 3072]), st.integers(1, 50), st.floats(0, 1), st.floats(1e-4, 1))
def test_a_draw_takes_none_that_the_samplers_cut(seed: int, size: int, k: int, p: float, ratio: float) -> None:
    [row] = table(seed, 1, size, ties=False)
    order = np.argsort(-row, kind="stable")[:k]
    chances = np.exp(row[order].astype(np.float64))
    reached = np.cumsum(chances / chances.sum())
    inside = reached - chances / chances.sum() < p + 1e-5
    likely = row[order] >= row[order[0]] + math.log(ratio) - 1e-5
    left = set(order[inside & likely].tolist()) | {int(order[0])}
    draw = TopDraw(k=k, p=p, log_ratio=math.log(ratio), keep=0, temperature=1.3, seed=seed)
    for _ in range(10):
        assert draw_together([draw], [0], [None], row[None])[0][0] in left


@pytest.mark.parametrize("value", [0.0, -np.inf, np.nan, np.inf])
def test_rows_that_say_nothing_draw_some_token(value: float) -> None:
    logits = np.full((3, 3072), value, np.float32)
    logits[1] = table(1, 1, 3072, ties=False)
    draws = [TopDraw(k=40, p=0.9, log_ratio=-3, keep=0, temperature=0.8, seed=n) for n in range(3)]
    assert all(0 <= token < 3072 for token in draw_together(draws, [0, 1, 2], [None] * 3, logits)[0])


def test_logits_are_restored_when_a_choice_fails() -> None:
    logits = table(3, 2, 300, ties=False)
    before = logits.copy()
    penalties = Penalties(last=4, repeat=1.5, frequency=0.5, presence=0.1)
    edits = LogitEdits(((5, 2.0), (7, -np.inf), (5, 1.0)), penalties)
    for token in (5, 9, 5):
        edits.accept(token)
    with suppress(LookupError), edited([edits, None], [0, 1], logits):
        assert (logits[1] == before[1]).all()
        assert logits[0, 7] == -np.inf
        assert {int(token) for token in np.flatnonzero(logits[0] != before[0])} == {5, 7, 9}
        biased = before[0, 5] + np.float32(3)
        penalised = biased * np.float32(1.5) if biased <= 0 else biased / np.float32(1.5)
        assert logits[0, 5] == pytest.approx(penalised - 2 * 0.5 - 0.1, abs=1e-5)
        raise LookupError
    assert (logits == before).all()


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({}, True),
        ({"min_p": 0.1, "top_p": 1.0}, True),
        ({"temperature": 1.0, "logit_bias": ((4, -3.0),)}, True),
        ({"samplers": ("top_k", "top_p")}, True),
        ({"temperature": 0.0}, False),
        ({"top_k": 0}, False),
        ({"top_k": 1000}, False),
        ({"logit_bias": ((4, 3.0), (5, -1.0))}, True),
        ({"repeat_penalty": 1.1}, True),
        ({"presence_penalty": -0.5, "frequency_penalty": 0.5}, True),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, False),
        ({"repeat_penalty": 1.1, "dry_multiplier": 0.8}, False),
        ({"repeat_penalty": 1.1, "samplers": ("top_k", "penalties")}, False),
        ({"typical_p": 0.9}, False),
        ({"dynatemp_range": 0.5}, False),
        ({"mirostat": 2}, False),
        ({"temperature": 1e-30}, False),
        ({"samplers": ("top_p", "top_k")}, False),
    ],
    ids=str,
)
def test_the_chain_is_replaced_only_where_all_samplers_are_known(said: dict[str, Any], used: bool) -> None:
    plan = SamplerPlan(sampling(**said), 512, 1, ())
    assert (plan.top_draw is not None) is used
    assert not (used and plan.steps)


# Against the chain of llama.cpp


MIXED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.0, "logit_bias": ((1, -math.inf), (7, -2.0))},
    {"temperature": 1.7, "top_k": 7, "top_p": 0.5, "min_p": 0.05},
    {"top_p": 1.0, "min_p": 0.2, "min_keep": 3},
    {"top_k": 200, "top_p": 0.99, "temperature": 1.0, "logit_bias": ((3, -1.0), (9, -math.inf))},
    {"top_k": 1},
    {"repeat_penalty": 1.2},
    {"repeat_penalty": 1.2, "frequency_penalty": 0.4, "presence_penalty": -0.3, "repeat_last_n": 9},
    {"repeat_penalty": 0.7, "logit_bias": ((3, 4.0), (7, -2.0), (8, 1.0))},
    {"temperature": 0.0, "repeat_penalty": 1.5, "logit_bias": ((3, 9.0),)},
    {"temperature": 0.0, "repeat_penalty": 1.1, "repeat_last_n": -1},
    {"mirostat": 2},
]


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.lists(st.sampled_from(MIXED), min_size=1, max_size=9), st.booleans())
def test_a_seed_gives_the_tokens_of_the_chain(
    model: NativeModel, seed: int, kinds: list[dict[str, Any]], bound: bool
) -> None:
    """Requests of all kinds together, in any rows, against a chain of llama.cpp for each."""
    buffer, size = Candidates(model.vocabulary), model.vocabulary

    def make(*shortcuts: Any) -> list[Sampler]:
        return [
            Sampler(
                model, buffer, sampling(**said), context_size=512, seed=seed ^ n, forbidden=(2,), shortcuts=shortcuts
            )
            for n, said in enumerate(kinds)
        ]

    together, chains = make("candidates", "cut", "together"), make("candidates", "cut")
    for sampler in (*together, *chains):
        sampler.accept_prompt([5, 8, 5, 7, 3, 8, 8, 1] * (seed % 12))
    for step in range(8):
        logits = table(seed + step, 12, size, ties=False)
        logits[:, 3:9] += 6
        before = logits.copy()
        rows = sorted(np.random.default_rng(seed + step).choice(12, len(kinds), replace=False).tolist())
        masks = some_masks(seed + step, len(kinds), size) if bound else [None] * len(kinds)
        expected = [c.choose(logits[row], mask) for c, row, mask in zip(chains, rows, masks, strict=True)]
        found, _ = choose_together(together, rows, masks, logits)
        assert found == expected
        assert (logits == before).all(), "the changes to llama.cpp's memory are taken back"
        for sampler, token in zip((*together, *chains), (*found, *expected), strict=True):
            sampler.accept(token)
    for sampler in (*together, *chains):
        sampler.close()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_grammar_that_allows_forbidden_tokens_alone_gets_one_of_them(model: NativeModel, temperature: float) -> None:
    flags = np.zeros(model.vocabulary, np.uint8)
    flags[[40, 2000]] = 1
    mask = np.packbits(flags, bitorder="little").tobytes()
    logits = table(5, 1, model.vocabulary, ties=False)
    said = sampling(temperature=temperature)
    buffer = Candidates(model.vocabulary)
    sampler = Sampler(model, buffer, said, context_size=512, seed=1, forbidden=(40, 2000))
    assert sampler.choose(logits[0], mask) == max((40, 2000), key=lambda token: logits[0, token])
    sampler.close()


class Choosing:
    """A request of `first_choices`."""

    def __init__(self, sampler: Sampler, alternatives: int | None, mask: bytes | None) -> None:
        self.id, self.sampler, self.alternatives, self._mask = 0, sampler, alternatives, mask

    def mask(self) -> bytes | None:
        return self._mask


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEEDS, st.lists(st.tuples(st.sampled_from([None, 0, 3, 5]), st.booleans()), min_size=1, max_size=6), st.data())
def test_reported_tokens_are_those_of_all_logits(
    model: NativeModel, seed: int, kinds: list[tuple[int | None, bool]], data: st.DataObject
) -> None:
    size, count = model.vocabulary, len(kinds)
    said = data.draw(st.sampled_from([{"temperature": 0.8}, {"temperature": 0.0}, {"top_k": 3}, {"repeat_penalty": 2}]))
    logits = table(seed, count, size, ties=False)
    best = logits.argsort(axis=1)[:, ::-1]
    forbidden = tuple(best[0, [0, 3]].tolist())
    masks = some_masks(seed, count, size)
    buffer = Candidates(size)
    choosers = [
        Choosing(
            Sampler(model, buffer, sampling(**said), context_size=512, seed=seed ^ n, forbidden=forbidden * forbids),
            alternatives,
            masks[n] if bound else None,
        )
        for n, (alternatives, bound) in enumerate(kinds)
        for forbids in [data.draw(st.booleans())]
    ]
    for row, (chooser, choice) in enumerate(zip(choosers, first_choices(choosers, range(count), logits), strict=True)):
        chooser.sampler.close()
        if chooser.alternatives is None:
            assert choice.log_probabilities is None
            continue
        own, others = alone.log_probabilities(logits[row], choice.token, chooser.alternatives)
        assert choice.log_probabilities is not None
        assert choice.log_probabilities[0] == pytest.approx(own, abs=1e-5)
        assert [id for id, _ in choice.log_probabilities[1]] == [id for id, _ in others]
