"""The choice of tokens: candidates that numpy leaves out could not be chosen, and invalid settings are refused."""

from __future__ import annotations

import math
from typing import Any

import llama_cpp.llama_cpp as llama_cpp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.sampler import Candidates, SamplerChain
from mullama.engines.llamacpp.sampling.candidates import (
    allowed_ids,
    largest,
    largest_allowed,
    likely,
    log_probabilities,
    nucleus,
)
from mullama.engines.llamacpp.sampling.sampler import Sampler, Shortcut, invalid_setting
from tests.engines.engine_driver import sampling

SIZE = 3072


@pytest.fixture(scope="module")
def candidates(model: NativeModel) -> Candidates:
    return Candidates(model.vocabulary)


def rows(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 3, SIZE).astype(np.float32) for _ in range(count)]


def bits(allowed: list[int]) -> bytes:
    flags = np.zeros(SIZE, np.uint8)
    flags[allowed] = 1
    return np.packbits(flags, bitorder="little").tobytes()


def picks(sampler: Sampler, rows: list[np.ndarray], prompt: list[int]) -> list[int]:
    sampler.accept_prompt(prompt)
    chosen = []
    for row in rows:
        chosen.append(sampler.choose(row))
        sampler.accept(chosen[-1])
    sampler.close()
    return chosen


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.0, "repeat_penalty": 1.3},
    {"temperature": 0.0, "logit_bias": ((5, 30.0), (6, -2.0))},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.7},
    {"top_k": 40, "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"top_k": 40, "repeat_penalty": 0.8},
    {"top_k": 0, "top_p": 0.5},
    {"top_k": 0, "top_p": 0.999},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.1},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.001, "min_keep": 700},
    {"top_k": 0, "top_p": 0.6, "min_p": 0.05, "logit_bias": ((3, 9.0), (4, -math.inf))},
    {"top_k": 0, "top_p": 1.0, "temperature": 0.7},
    {"top_k": 0, "top_p": 1.0, "typical_p": 0.3},
    {"top_n_sigma": 1.0},
    {"xtc_probability": 0.9, "xtc_threshold": 0.05},
    {"dynatemp_range": 0.5, "dynatemp_exponent": 1.2},
    {"dry_multiplier": 0.8, "dry_allowed_length": 1},
    {"mirostat": 1},
    {"mirostat": 2, "mirostat_tau": 3.0},
    {"samplers": ("temperature", "top_p", "top_k")},
    {"samplers": ("top_k", "typ_p"), "top_k": 7},
    {"logit_bias": ((1, -math.inf), (2, 3.5)), "top_k": 3},
    {"top_k": 100_000},
    {"min_keep": 3, "top_p": 0.01},
]


@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_leaving_out_candidates_changes_no_choice(
    said: dict[str, Any], model: NativeModel, candidates: Candidates
) -> None:
    """The chain over the complete vocabulary, the same chain over candidates that numpy selects, and numpy alone.

    The shortcut `draw` is left out of all, because it has its own random numbers.
    """
    table = rows(60)
    prompt = list(range(0, 400, 7))

    def run(*shortcuts: Shortcut) -> list[int]:
        sampler = Sampler(model, candidates, sampling(**said), context_size=512, seed=11, shortcuts=shortcuts)
        return picks(sampler, table, prompt)

    assert run("candidates", "cut") == run()
    assert run("candidates", "cut", "together") == run()


def test_a_seed_gives_the_same_choices_again_and_another_seed_others(
    model: NativeModel, candidates: Candidates
) -> None:
    def run(seed: int) -> list[int]:
        return picks(Sampler(model, candidates, sampling(temperature=2.0), context_size=512, seed=seed), rows(40), [])

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(0xFFFFFFFF) == run(0xFFFFFFFF)


def test_temperature_zero_is_the_likeliest_token(model: NativeModel, candidates: Candidates) -> None:
    sampler = Sampler(model, candidates, sampling(temperature=0.0), context_size=512, seed=1)
    for row in rows(20):
        assert sampler.choose(row) == int(row.argmax())


def test_temperature_zero_is_the_likeliest_token_after_its_biases(model: NativeModel, candidates: Candidates) -> None:
    table = rows(40)
    best = sorted({int(row.argmax()) for row in table})
    for biases in (
        tuple((token, -math.inf) for token in best[::2]),
        tuple((token, -0.1 * index) for index, token in enumerate(best)),
        ((best[0], -math.inf), (best[1], 0.5)),
    ):
        sampler = Sampler(model, candidates, sampling(temperature=0.0, logit_bias=biases), context_size=512, seed=1)
        for row in table:
            biased = row.copy()
            for token, bias in biases:
                biased[token] += np.float32(bias)
            assert sampler.choose(row) == int(biased.argmax())
        sampler.close()


def test_draws_follow_the_probabilities(model: NativeModel, candidates: Candidates) -> None:
    row = np.full(SIZE, -50, np.float32)
    row[[3, 5]] = [math.log(0.75), math.log(0.25)]
    sampler = Sampler(model, candidates, sampling(temperature=1.0, top_p=1.0), context_size=512, seed=3)
    chosen = [sampler.choose(row) for _ in range(4000)]
    assert chosen.count(3) / 4000 == pytest.approx(0.75, abs=0.03)
    assert set(chosen) == {3, 5}


def test_a_forbidden_token_is_never_chosen(model: NativeModel, candidates: Candidates) -> None:
    for temperature in (0.0, 1.0):
        sampler = Sampler(
            model, candidates, sampling(temperature=temperature), context_size=512, seed=3, forbidden=(7, 8)
        )
        row = rows(1)[0]
        row[7] = row[8] = 90
        assert sampler.choose(row) not in (7, 8)
        sampler.close()


@pytest.mark.parametrize("said", SETTINGS, ids=str)
def test_only_allowed_tokens_are_chosen(said: dict[str, Any], model: NativeModel, candidates: Candidates) -> None:
    sampler = Sampler(model, candidates, sampling(**said), context_size=512, seed=5)
    rng = np.random.default_rng(1)
    for count in (1, 2, 30, 1000, SIZE):
        allowed = sorted(rng.choice(SIZE, count, replace=False).tolist())
        for row in rows(3, seed=count):
            chosen = sampler.choose(row, bits(allowed))
            assert chosen in allowed
            if said == {"temperature": 0.0}:
                assert chosen == max(allowed, key=lambda token: row[token])
    sampler.close()


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(1, 5000))
def test_the_largest_values_are_found(count: int, seed: int, size: int) -> None:
    row = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    found = largest(row, count)
    if found is not None:
        assert sorted(row[found].tolist()) == sorted(row.tolist())[-count:]


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(0, 2**32 - 1), st.integers(0, 2000))
def test_the_largest_allowed_values_are_among_those_found(count: int, seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    row = rng.normal(size=SIZE).astype(np.float32)
    allowed = np.sort(rng.choice(SIZE, number, replace=False))
    found = largest_allowed(row, bits(allowed.tolist()), count)
    assert set(found) <= set(allowed.tolist())
    best = sorted(row[allowed].tolist(), reverse=True)[:count]
    assert sorted(row[found].tolist(), reverse=True)[: len(best)] == best
    assert row[found].tolist() == sorted(row[found].tolist())


@settings(deadline=None)
@given(st.floats(0.01, 1), st.integers(0, 2**32 - 1), st.integers(1, 5000), st.floats(0.1, 5), st.integers(0, 9))
def test_a_nucleus_is_that_of_the_definition(p: float, seed: int, size: int, spread: float, keep: int) -> None:
    row = np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)
    found = nucleus(row, p, keep)
    order = np.argsort(-row.astype(np.float64), kind="stable")
    probabilities = np.exp(row[order].astype(np.float64))
    reached = np.cumsum(probabilities) / probabilities.sum()
    count = max(int(np.searchsorted(reached, p)) + 1, min(keep, size))
    assert abs(len(found) - min(count, size)) <= 1  # the sum may round to either side
    assert len(set(found.tolist())) == len(found)
    assert sorted(row[found].tolist(), reverse=True) == row[order][: len(found)].tolist()


def test_a_nucleus_of_equal_tokens_is_no_larger_than_it_must_be() -> None:
    found = nucleus(np.zeros(1000, np.float32), 0.5, 0)
    assert len(found) == 500 == len(set(found.tolist()))


@given(st.floats(0.001, 1), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_likely_tokens_are_those_of_the_definition(ratio: float, seed: int, keep: int) -> None:
    row = np.random.default_rng(seed).normal(0, 3, 500).astype(np.float32)
    found = set(likely(row, ratio, keep).tolist())
    expected = {i for i in range(500) if row[i] >= row.max() + math.log(ratio)}
    assert found == expected or (len(expected) < keep and found >= expected and len(found) == keep)


def test_allowed_ids_are_the_set_bits() -> None:
    assert allowed_ids(bits([0, 5, 8, 3071]), SIZE).tolist() == [0, 5, 8, 3071]


def test_log_probabilities_are_of_the_whole_vocabulary() -> None:
    row = rows(1)[0]
    exact = np.log(np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum())
    chosen, best = log_probabilities(row, 17, 5)
    assert chosen == pytest.approx(exact[17], abs=1e-4)
    assert [token for token, _ in best] == np.argsort(exact)[::-1][:5].tolist()
    for token, value in best:
        assert value == pytest.approx(exact[token], abs=1e-4)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": math.nan}, "top_p"),
        ({"repeat_penalty": 0.0}, "repeat_penalty"),
        ({"repeat_penalty": -1.0}, "repeat_penalty"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"mirostat": 3}, "mirostat"),
        ({"dry_base": math.inf}, "dry_base"),
        ({"logit_bias": ((SIZE, 1.0),)}, "3072"),
        ({"logit_bias": ((-1, 1.0),)}, "-1"),
        ({"logit_bias": ((1, math.nan),)}, "token 1"),
        ({"samplers": ("top_k", "magic")}, "magic"),
    ],
)
def test_settings_that_mean_nothing_are_named(said: dict[str, Any], word: str) -> None:
    reason = invalid_setting(sampling(**said), SIZE)
    assert reason is not None
    assert word in reason


def test_the_defaults_are_valid() -> None:
    assert invalid_setting(DEFAULT_SAMPLING, SIZE) is None


def test_a_setting_that_is_not_said_is_a_mistake_of_the_caller() -> None:
    assert invalid_setting(Sampling(), SIZE) == "temperature is not set"


@pytest.mark.parametrize("name", SAMPLING_FIELDS)
@pytest.mark.parametrize("end", ["low", "high"])
def test_extreme_settings_do_not_hang(model: NativeModel, candidates: Candidates, name: str, end: str) -> None:
    field = SAMPLING_FIELDS[name]
    value = field.type(getattr(field, end))
    together = {
        "dry_base": {"dry_multiplier": 1000.0},
        "dry_allowed_length": {"dry_multiplier": 1.0},
        "mirostat_tau": {"mirostat": 1},
        "mirostat_eta": {"mirostat": 2, "mirostat_tau": 0.0},
        "xtc_threshold": {"xtc_probability": 1.0},
    }
    settings = sampling(**{**together.get(name, {}), name: value})
    assert invalid_setting(settings, SIZE) is None
    sampler = Sampler(model, candidates, settings, context_size=512, seed=5)
    assert all(0 <= token < SIZE for token in picks(sampler, rows(3), [1, 2, 3] * 20))


def test_a_tiny_temperature_does_not_overflow(model: NativeModel, candidates: Candidates) -> None:
    sampler = Sampler(model, candidates, sampling(temperature=1e-30), context_size=512, seed=5)
    assert all(0 <= token < SIZE for token in picks(sampler, rows(3), [1, 2, 3] * 20))


def test_a_chain_frees_its_samplers_once(model: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[object] = []
    free = llama_cpp.llama_sampler_free
    monkeypatch.setattr(llama_cpp, "llama_sampler_free", lambda chain: (freed.append(chain), free(chain)))
    chain = SamplerChain(model)
    chain.greedy()
    chain.close()
    chain.close()
    assert len(freed) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("allowed", [None, list(range(0, SIZE, 7))])
def test_the_last_draw_has_the_probabilities_of_the_tokens_that_the_samplers_keep(
    temperature: float, allowed: list[int] | None, model: NativeModel, candidates: Candidates
) -> None:
    [row] = rows(1, seed=3)
    settings = sampling(temperature=temperature, top_k=5, top_p=1.0, min_p=0.0, repeat_penalty=1.0)
    sampler = Sampler(model, candidates, settings, context_size=64, seed=1, shortcuts=())

    chosen = sampler.choose(row, None if allowed is None else bits(allowed))
    own, best = sampler.last_draw(chosen, 3)
    _, all_five = sampler.last_draw(chosen, 20)
    sampler.close()

    may = np.arange(SIZE) if allowed is None else np.array(allowed)
    kept = may[row[may].argsort()[::-1][:5]]
    weights = np.exp((row[kept] - row[kept].max()) / temperature)
    expected = dict(zip(kept.tolist(), (weights / weights.sum()).tolist(), strict=True))
    assert [id for id, _ in all_five] == kept.tolist()
    assert [p for _, p in all_five] == pytest.approx(list(expected.values()), rel=1e-4)
    assert best == all_five[:3]
    assert own == pytest.approx(expected[chosen], rel=1e-4)


@pytest.mark.parametrize("biases", [(), ((5, -1.0),)])
def test_the_last_draw_of_the_likeliest_token_is_certain(
    biases: tuple[tuple[int, float], ...], model: NativeModel, candidates: Candidates
) -> None:
    [row] = rows(1, seed=4)
    settings = sampling(temperature=0.0, logit_bias=biases)
    sampler = Sampler(model, candidates, settings, context_size=64, seed=1, shortcuts=())
    chosen = sampler.choose(row)
    assert chosen == int(row.argmax())
    assert sampler.last_draw(chosen, 3) == (1.0, [(chosen, 1.0)])
    assert sampler.last_draw(chosen, 0) == (1.0, [])
    sampler.close()
