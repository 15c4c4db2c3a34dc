"""Chooses the next token: numpy selects the candidates that could be chosen, llama.cpp's samplers choose.

A sampler chain over a complete vocabulary takes about half a millisecond; numpy finds the best `k` logits in some
twenty microseconds. So where the first sampler that cuts is top-k, or the choice is greedy, the chain gets only the
candidates that could survive it. Top-p and min-p, where they come first, are computed here, together with the draw
where no other sampler comes between.

Each request has its own random numbers, so a seed gives the same answer independent of other requests, provided that
the logits are the same: llama.cpp's matrix kernels may round differently for batches of different shapes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from typing import Literal

import numpy as np

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.chat.types import Sampling
from mullama.engines.llamacpp.binding.context import Floats, Ids
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.sampler import Candidates, SamplerChain
from mullama.engines.llamacpp.sampling.candidates import (
    allowed_ids,
    largest,
    largest_allowed,
    likely,
    nucleus,
    set_bits,
)
from mullama.engines.llamacpp.sampling.edits import LONGEST_WINDOW, LogitEdits, Penalties
from mullama.engines.llamacpp.sampling.rejection import COLDEST, RejectionSampler
from mullama.engines.llamacpp.sampling.together import choose_together
from mullama.engines.llamacpp.sampling.top_draw import MOST_CANDIDATES, TopDraw
from mullama.struct import Struct, asdict

DEFAULT_ORDER = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
_ALIASES = {"typ_p": "typical_p", "typical": "typical_p", "temp": "temperature"}
_KNOWN = frozenset((*DEFAULT_ORDER, "infill"))
Shortcut = Literal["candidates", "cut", "draw", "together"]
SHORTCUTS: tuple[Shortcut, ...] = ("candidates", "cut", "draw", "together")
_LOOK_BACK = ("penalties", "dry")  # samplers that read past tokens
_LAST_SEED = 0xFFFFFFFE  # the next number is LLAMA_DEFAULT_SEED: a random seed


def invalid_setting(sampling: Sampling, vocabulary: int) -> str | None:
    """Return a sentence about the first invalid setting, or None. Invalid settings must not reach native code."""
    for name, field in SAMPLING_FIELDS.items():
        value = getattr(sampling, name)
        if value is None:
            return f"{name} is not set"
        if not field.low <= value <= field.high:  # also true of not-a-number
            return f"{name} is {value}, which is not between {field.low:g} and {field.high:g}"
    for token, bias in sampling.logit_bias or ():
        if isinstance(token, str):
            return f"logit_bias names the text {token[:40]!r}, not a token"
        if not 0 <= token < vocabulary:
            return f"logit_bias names token {token}; the vocabulary has {vocabulary} tokens"
        if math.isnan(bias) or bias == math.inf:
            return f"logit_bias of token {token} is {bias}"
    unknown = [n for n in sampling.samplers or () if _ALIASES.get(n, n) not in _KNOWN]
    if unknown:
        return f"samplers names {unknown[0]!r}; use one of {', '.join(sorted(_KNOWN))}"
    return None


class _Settings(Struct, frozen=True, kw_only=True):
    """`Sampling` with every field set."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    top_n_sigma: float
    xtc_probability: float
    xtc_threshold: float
    dynatemp_range: float
    dynatemp_exponent: float
    repeat_last_n: int
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: tuple[str, ...]
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    seed: int
    min_keep: int
    samplers: tuple[str, ...]
    logit_bias: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one request.

    `seed` is not negative. `forbidden` tokens are never chosen. Without `shortcuts` the chain gets every token: a
    reference for tests, with the same choices except for the random numbers of the draw.

    `looks_back` is True if tokens must be accepted. The other attributes are those of `UsualSampler`.
    """

    def __init__(
        self,
        model: NativeModel,
        candidates: Candidates,
        sampling: Sampling,
        *,
        context_size: int,
        seed: int,
        forbidden: Sequence[int] = (),
        shortcuts: Collection[Shortcut] = SHORTCUTS,
    ) -> None:
        plan = SamplerPlan(sampling, context_size, min(seed, _LAST_SEED), forbidden, shortcuts)
        self._candidates = candidates
        self._memory = plan.memory
        self.looks_back = plan.memory > 0
        self._enough = plan.enough
        self._cut = plan.cut
        self._draw = plan.draw
        self._seed = seed
        self._biased = np.array([token for token, _ in plan.biases], np.int32)
        self._biases = np.array([bias for _, bias in plan.biases], np.float32)
        self._raised = self._biased[self._biases > 0]
        self.takes_likeliest = plan.takes_likeliest
        self.top_draw = plan.top_draw
        self.edits = plan.edits
        self._greedy = plan.greedy
        self._chain: SamplerChain | None = None
        if plan.steps:
            self._chain = SamplerChain(model)
            for _, add in plan.steps:
                add(self._chain)

    @cached_property
    def _random(self) -> random.Random:
        return random.Random(self._seed)

    def choose(self, row: Floats, allowed: bytes | None = None) -> int:
        """Return the next token. `row`: all logits. `allowed`: one bit per token, lowest first; None for all."""
        return choose_together([self], [0], [allowed], row[None])[0][0]

    def choose_alone(self, row: Floats, allowed: bytes | None) -> int:
        """Return the next token by the chain."""
        assert self._chain is not None
        if self._cut is not None:
            return self._choose_after_cut(self._cut, row, allowed)
        ids = self._select(row, allowed)
        return self._chain.choose(self._candidates, ids, row if ids is None else row[ids])

    def _choose_after_cut(self, cut: _Cut, row: Floats, allowed: bytes | None) -> int:
        """Apply the first sampler that cuts here, and the rest of the chain to what it keeps."""
        assert self._chain is not None
        if len(self._biased):
            row = row.copy()
            row[self._biased] += self._biases
        some = None if allowed is None else allowed_ids(allowed, len(row))
        seen = row if some is None else row[some]
        if self._draw is not None and (index := self._draw(seen, self._random.random)) is not None:
            return index if some is None else int(some[index])
        ids = cut(seen) if some is None else some[cut(seen)]
        return self._chain.choose(self._candidates, ids, row[ids])

    def _select(self, row: Floats, allowed: bytes | None) -> Ids | None:
        if allowed is None:
            ids = None if self._enough is None else largest(row, self._enough)
        elif self._enough is None:
            ids = allowed_ids(allowed, len(row))
        else:
            ids = largest_allowed(row, allowed, self._enough)
        if ids is None or not len(self._raised):
            return ids
        raised = self._raised if allowed is None else self._raised[set_bits(allowed, self._raised)]
        return np.union1d(ids, raised).astype(np.int32)

    def last_draw(self, chosen: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the probability of the token that was chosen last, and the likeliest tokens with theirs, best first.

        They belong to the distribution after all samplers; tokens that it cannot draw are left out. Call it only
        without `shortcuts`, which do not compute that distribution.
        """
        if self._greedy:
            return 1.0, [(chosen, 1.0)][:alternatives]
        ids, probabilities = self._candidates.drawn()
        own = probabilities[ids == chosen]
        best = [(int(id), float(p)) for id, p in zip(ids[:alternatives], probabilities, strict=False) if p > 0]
        return (float(own[0]) if len(own) else 0.0), best

    def accept(self, token: int) -> None:
        """Record a token of the answer, which penalties count."""
        if self.edits is not None:
            self.edits.accept(token)
        elif self._memory and self._chain is not None:
            self._chain.accept(token)

    def accept_prompt(self, tokens: Sequence[int]) -> None:
        """Record the prompt's last tokens, which penalties count too."""
        if self._memory:
            for token in tokens[-self._memory :]:
                self.accept(token)

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()


_Add = Callable[[SamplerChain], None]
_Cut = Callable[[Floats], Ids]


class SamplerPlan:
    """The samplers of a request, in order, and the candidates that they need.

    - `steps`: samplers of the chain, none for the plain likeliest token.
    - `enough`: this many of the largest logits hold every token that the chain could choose; None for all.
    - `cut`: replaces the first sampler, on all logits with biases.
    - `draw`: may replace all samplers.
    - `takes_likeliest`, `top_draw`: replace all samplers, after `edits`.
    - `memory`: number of past tokens that the chain reads.
    - `greedy`: the likeliest token is chosen, so that it has the whole probability.
    """

    def __init__(
        self,
        sampling: Sampling,
        context_size: int,
        seed: int,
        forbidden: Sequence[int],
        shortcuts: Collection[Shortcut] = SHORTCUTS,
    ) -> None:
        s = _Settings(**asdict(sampling))
        self._s, self._seed = s, seed
        self._penalty_last = _window(s.repeat_last_n, context_size)
        self._dry_last = _window(s.dry_penalty_last_n, context_size)
        self.biases = (*s.logit_bias, *((token, -math.inf) for token in forbidden))
        order = tuple(_ALIASES.get(name, name) for name in s.samplers or DEFAULT_ORDER)
        active = self._active()
        cuts = [(name, active[name]) for name in order if name in active]
        looks_back = [step for step in cuts if step[0] in _LOOK_BACK]
        self.greedy = greedy = s.temperature <= 0 and "xtc" not in dict(cuts)
        if greedy:
            chosen = [*looks_back, ("greedy", SamplerChain.greedy)]
        elif s.mirostat:
            chosen = [*looks_back, *self._mirostat()]
        else:
            chosen = [*cuts, ("draw", lambda chain: chain.draw(seed))]
        self.memory = self._reach({name for name, _ in looks_back})
        self.enough = self._count(chosen) if "candidates" in shortcuts else None
        self.cut = self._first_cut(chosen[0][0]) if "cut" in shortcuts else None
        self.draw = self._rejection_sampler([name for name, _ in chosen]) if "draw" in shortcuts else None
        names = [name for name, _ in chosen]
        alone = "together" in shortcuts and self._edits_only(names)
        choosing = names[len(looks_back) :] if alone else []
        self.takes_likeliest = choosing == ["greedy"]
        self.top_draw = self._top_draw(choosing)
        usual = self.takes_likeliest or self.top_draw is not None
        self.edits = self._edits(looks_back) if usual else None
        self.steps = [] if usual else chosen[1:] if self.cut else self._with_bias(chosen)

    def _edits_only(self, names: Sequence[str]) -> bool:
        """Return True if the samplers that look back come first, and `LogitEdits` can do what they do."""
        back = [name for name in names if name in _LOOK_BACK]
        return not back or (back == ["penalties"] == list(names[:1]) and self._penalty_last <= LONGEST_WINDOW)

    def _edits(self, looks_back: Sequence[tuple[str, _Add]]) -> LogitEdits | None:
        s, penalties = self._s, None
        if looks_back:
            penalties = Penalties(
                last=self._penalty_last,
                repeat=s.repeat_penalty,
                frequency=s.frequency_penalty,
                presence=s.presence_penalty,
            )
        return LogitEdits(self.biases, penalties) if self.biases or penalties else None

    def _first_cut(self, name: str) -> _Cut | None:
        """Return the numpy form of the first sampler, None for one that has none."""
        s = self._s
        if name == "top_p":
            return partial(nucleus, p=s.top_p, keep=s.min_keep)
        if name == "min_p":
            return partial(likely, ratio=s.min_p, keep=s.min_keep)
        return None

    def _rejection_sampler(self, names: Sequence[str]) -> RejectionSampler | None:
        """Return a replacement of the chain, None unless the chain has only the supported samplers in their order."""
        s = self._s
        supported = [name for name in ("top_p", "min_p", "temperature", "draw") if name in names]
        if self.cut is None or names != supported or s.dynatemp_range > 0 or s.min_keep > 1:
            return None
        temperature = s.temperature if "temperature" in names else 1.0
        if temperature < COLDEST or s.top_p <= 0:
            return None
        return RejectionSampler(
            temperature=temperature,
            p=s.top_p if "top_p" in names else 1.0,
            ratio=s.min_p if "min_p" in names else 0.0,
        )

    def _top_draw(self, names: Sequence[str]) -> TopDraw | None:
        """Return a replacement of the chain, None unless the chain has only the supported samplers in their order."""
        s = self._s
        supported = ["top_k", *(n for n in ("top_p", "min_p", "temperature") if n in names), "draw"]
        temperature = s.temperature if "temperature" in names else 1.0
        if names != supported or s.dynatemp_range > 0 or temperature < COLDEST or s.top_k > MOST_CANDIDATES:
            return None
        return TopDraw(
            k=s.top_k,
            p=s.top_p if "top_p" in names else 1.0,
            log_ratio=math.log(s.min_p) if "min_p" in names else -math.inf,
            keep=s.min_keep,
            temperature=temperature,
            seed=self._seed,
        )

    def _with_bias(self, steps: list[tuple[str, _Add]]) -> list[tuple[str, _Add]]:
        biases = self.biases
        return [("bias", lambda chain: chain.bias(biases)), *steps] if biases else steps

    def _reach(self, names: set[str]) -> int:
        """Return how many past tokens these samplers read."""
        return max(
            self._penalty_last if "penalties" in names else 0,
            self._dry_last if "dry" in names else 0,
        )

    def _count(self, steps: Sequence[tuple[str, _Add]]) -> int | None:
        """Return how many of the largest logits hold every token that the chain could choose; None for all.

        A lowered logit can push at most its own token out of the best `k`, so each of them needs one more candidate.
        Penalties that raise logits could lift any token into the best `k`, so the chain needs all of them; raised
        biases are added to the candidates by `Sampler._select`.
        """
        s = self._s
        names = [name for name, _ in steps]
        raises = s.repeat_penalty < 1 or s.presence_penalty < 0 or s.frequency_penalty < 0
        if "dry" in names or ("penalties" in names and raises):
            return None
        first = next(name for name in names if name != "penalties")
        if first not in ("greedy", "top_k"):
            return None
        lowered = sum(1 for _, bias in self.biases if bias < 0)
        lowered += self._penalty_last if "penalties" in names else 0
        return lowered + (1 if first == "greedy" else s.top_k)

    def _active(self) -> dict[str, _Add]:
        """Return the samplers that have an effect, by name."""
        s, keep = self._s, self._s.min_keep
        flat = s.repeat_penalty == 1 and s.presence_penalty == 0 and s.frequency_penalty == 0
        dry = s.dry_multiplier > 0 and s.dry_base >= 1 and self._dry_last > 0
        every: dict[str, tuple[bool, _Add]] = {
            "penalties": (self._penalty_last > 0 and not flat, self._add_penalties),
            "dry": (dry, self._add_dry),
            "top_n_sigma": (s.top_n_sigma > 0, lambda chain: chain.top_n_sigma(s.top_n_sigma)),
            "top_k": (s.top_k > 0, lambda chain: chain.top_k(s.top_k)),
            "typical_p": (s.typical_p < 1, lambda chain: chain.typical(s.typical_p, keep)),
            "top_p": (s.top_p < 1, lambda chain: chain.top_p(s.top_p, keep)),
            "min_p": (s.min_p > 0, lambda chain: chain.min_p(s.min_p, keep)),
            "xtc": (s.xtc_probability > 0 and s.xtc_threshold <= 0.5, self._add_xtc),
            "temperature": (s.temperature != 1 or s.dynatemp_range > 0, self._add_temperature),
            "infill": (True, SamplerChain.infill),
        }
        return {name: add for name, (wanted, add) in every.items() if wanted}

    def _mirostat(self) -> list[tuple[str, _Add]]:
        s, seed = self._s, self._seed
        return [
            ("temperature", lambda chain: chain.temperature(s.temperature, 0, 1)),
            ("mirostat", lambda c: c.mirostat(s.mirostat, seed, s.mirostat_tau, s.mirostat_eta)),
        ]

    def _add_penalties(self, chain: SamplerChain) -> None:
        s = self._s
        last = self._penalty_last
        chain.penalties(last, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)

    def _add_dry(self, chain: SamplerChain) -> None:
        s = self._s
        breakers = [text.encode() for text in s.dry_sequence_breakers]
        last = self._dry_last
        chain.dry(s.dry_multiplier, s.dry_base, s.dry_allowed_length, last, breakers)

    def _add_xtc(self, chain: SamplerChain) -> None:
        s = self._s
        chain.xtc(s.xtc_probability, s.xtc_threshold, s.min_keep, self._seed)

    def _add_temperature(self, chain: SamplerChain) -> None:
        s = self._s
        chain.temperature(s.temperature, s.dynatemp_range, s.dynatemp_exponent)


def _window(last: int, context_size: int) -> int:
    """Return how many tokens a sampler reads back; -1 means the complete context."""
    return context_size if last < 0 else min(last, context_size)
