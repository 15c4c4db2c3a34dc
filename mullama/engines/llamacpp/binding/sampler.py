"""Chains of llama.cpp's samplers over candidate tokens that numpy has selected."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np

from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.errors import EngineFailed

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """A reusable llama_token_data_array with room for a complete vocabulary; all chains of an engine share it."""

    def __init__(self, vocabulary: int) -> None:
        self._rows = np.zeros(vocabulary, _CANDIDATE)
        self._ids, self._logits = self._rows["id"], self._rows["logit"]
        self._all = np.arange(vocabulary, dtype=np.int32)
        self._array = c.llama_token_data_array()
        self._first = ctypes.cast(self._rows.ctypes.data, c.llama_token_data_p)
        self._reference = ctypes.byref(self._array)

    def fill(self, ids: Ids | None, logits: Floats) -> Any:
        """Fill in these tokens (None for all) with their logits; return a pointer for llama_sampler_apply."""
        count = len(logits)
        self._ids[:count] = self._all if ids is None else ids
        self._logits[:count] = logits
        self._array.data = self._first  # a sampler may have moved the pointer
        self._array.size = count
        self._array.selected = -1
        self._array.sorted = False
        return self._reference

    def chosen(self) -> int:
        """Return the token that the last chain selected."""
        if self._array.selected < 0:
            raise EngineFailed("the samplers left no token to choose")
        return int(self._array.data[self._array.selected].id)

    def drawn(self) -> tuple[Ids, Floats]:
        """Return the tokens from which the last chain drew, with their probabilities, likeliest first."""
        address = ctypes.cast(self._array.data, ctypes.c_void_p).value
        if not address:
            raise EngineFailed("the samplers left no token to choose")
        memory = (ctypes.c_char * (self._array.size * _CANDIDATE.itemsize)).from_address(address)
        rows = np.frombuffer(memory, _CANDIDATE)
        order = rows["p"].argsort(kind="stable")[::-1]
        return rows["id"][order], rows["p"][order]


class SamplerChain:
    """Applies samplers in the order in which they were added."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._chain: Any = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())

    def _add(self, sampler: Any) -> None:
        c.llama_sampler_chain_add(self._chain, sampler)

    def bias(self, biases: Sequence[tuple[int, float]]) -> None:
        array = (c.llama_logit_bias * len(biases))(*biases)
        self._add(c.llama_sampler_init_logit_bias(self._model.vocabulary, len(biases), array))

    def penalties(self, last: int, repeat: float, frequency: float, presence: float) -> None:
        vocabulary = self._model.vocabulary
        self._add(c.llama_sampler_init_penalties(vocabulary, last, repeat, frequency, presence))

    def dry(self, multiplier: float, base: float, allowed: int, last: int, breakers: Sequence[bytes]) -> None:
        array = (ctypes.c_char_p * len(breakers))(*breakers)
        vocab = self._model.vocab
        self._add(c.llama_sampler_init_dry(vocab, multiplier, base, allowed, last, array, len(breakers)))

    def top_n_sigma(self, n: float) -> None:
        self._add(c.llama_sampler_init_top_n_sigma(n))

    def top_k(self, k: int) -> None:
        self._add(c.llama_sampler_init_top_k(k))

    def typical(self, p: float, keep: int) -> None:
        self._add(c.llama_sampler_init_typical(p, keep))

    def top_p(self, p: float, keep: int) -> None:
        self._add(c.llama_sampler_init_top_p(p, keep))

    def min_p(self, p: float, keep: int) -> None:
        self._add(c.llama_sampler_init_min_p(p, keep))

    def xtc(self, probability: float, threshold: float, keep: int, seed: int) -> None:
        self._add(c.llama_sampler_init_xtc(probability, threshold, keep, seed))

    def temperature(self, temperature: float, spread: float, exponent: float) -> None:
        self._add(c.llama_sampler_init_temp_ext(temperature, spread, exponent))

    def infill(self) -> None:
        self._add(c.llama_sampler_init_infill(self._model.vocab))

    def mirostat(self, version: int, seed: int, tau: float, eta: float) -> None:
        if version == 1:
            self._add(c.llama_sampler_init_mirostat(self._model.vocabulary, seed, tau, eta, 100))
        else:
            self._add(c.llama_sampler_init_mirostat_v2(seed, tau, eta))

    def draw(self, seed: int) -> None:
        """Add the last sampler: choose by probability."""
        self._add(c.llama_sampler_init_dist(seed))

    def greedy(self) -> None:
        """Add the last sampler: choose the likeliest token."""
        self._add(c.llama_sampler_init_greedy())

    def choose(self, candidates: Candidates, ids: Ids | None, logits: Floats) -> int:
        c.llama_sampler_apply(self._chain, candidates.fill(ids, logits))
        return candidates.chosen()

    def accept(self, token: int) -> None:
        c.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain is not None:
            c.llama_sampler_free(self._chain)
            self._chain = None
