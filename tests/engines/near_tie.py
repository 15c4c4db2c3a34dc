"""Compares two computations of the same greedy answers, up to the first near tie of two tokens.

llama.cpp rounds differently in batches of other shapes and with the kernels of other instruction sets, so where two
tokens are almost equally likely, two correct computations may choose differently. From there on they write different
texts. Every other difference is a fault.

Jobs are compared by their logprobs: ask for them with `logprobs=ALTERNATIVES`. Tests that compare texts without
logprobs use the prompts of `test_clear_answers.py`, whose answers have no near tie.
"""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.types import TokenLogprob
from mullama.engines.base import Engine, EngineFacts
from tests.engines.engine_driver import Result, answer

ALTERNATIVES = 8

# Bounds for the difference of one logprob (natural logarithm) between two correct computations on one processor.
# Largest differences of the eight likeliest tokens, measured with prompts alone and in batches of four, whole and in
# slices of 16 tokens, over a declared prefix and without, in a pool and in slots:
#   built-in model (weights and activations of 8 bits, a cache of 16): 0.20 with AVX2, 0.23 with SSE4.2
#   random models (weights of 32 bits, a cache of 16): 0.003 with both; those of real shape, 0.005 in 750 tokens of each
# Other prompts and processors may round a little worse.
QUANTISED = 0.4
EXACT = 0.02


def rounding_of(facts: EngineFacts) -> float:
    """The bound for a model: weights of less than four bytes each are quantised or in half precision."""
    return QUANTISED if facts.weights_bytes < 3 * facts.parameters else EXACT


def assert_same_answers(facts: EngineFacts, left: Sequence[Result], right: Sequence[Result]) -> None:
    """Fail unless each pair of answers of this model agrees, and near ties leave half of all tokens to compare."""
    pairs = zip(left, right, strict=True)
    counts = [tokens_compared(*pair, rounding=rounding_of(facts), ends=facts.end_tokens) for pair in pairs]
    total = sum(result.count for result in left)
    assert sum(counts) * 2 >= total, f"near ties end the comparison after {sum(counts)} of {total} tokens"


def tokens_compared(left: Result, right: Result, *, rounding: float, ends: Sequence[int]) -> int:
    """The number of tokens before the first near tie; all of them where there is none. Fail where they disagree.

    `rounding` bounds the difference of a logprob between the two. `ends` are the model's end tokens: an answer may
    end earlier than the other, and an end token has no logprob of its own.
    """
    for result in (left, right):
        assert result.failed is None, result.failed
        assert len(result.logprobs) == result.count, "both jobs must ask for logprobs"
    for index, (one, other) in enumerate(zip(left.logprobs, right.logprobs, strict=False)):
        for entry in (one, other):
            assert entry.logprob == entry.top[0].logprob, f"token {index}: {entry.text!r} is not the likeliest"
        if one.id != other.id:
            _assert_near_tie(one, (other.id,), rounding, index)
            _assert_near_tie(other, (one.id,), rounding, index)
            return index
        shift = abs(one.logprob - other.logprob)
        assert shift <= rounding, f"token {index}: the logprobs of {one.text!r} differ by {shift:.3f}"
    if left.count != right.count:
        longer, index = max(left, right, key=lambda r: r.count), min(left.count, right.count)
        _assert_near_tie(longer.logprobs[index], ends, rounding, index)
        return index
    assert left.text == right.text
    return left.count


def _assert_near_tie(entry: TokenLogprob, others: Sequence[int], rounding: float, index: int) -> None:
    """Fail unless one of the `others` is about as likely as the chosen token.

    Both logprobs of the pair may shift by `rounding` before the order changes, so their gap is at most twice that.
    """
    gap = min((entry.logprob - t.logprob for t in entry.top if t.id in others), default=float("inf"))
    assert gap <= 2 * rounding, f"token {index}: {entry.text!r} is ahead of the other choice by {gap:.3f}"


def least_gap(engine: Engine, prompt: str, text: str, end: str = "<|im_end|>") -> float:
    """The least difference of logprobs between a token of a greedy answer, or its end, and the next likely one."""
    scored = answer(engine, prompt + text + end, echo=True, logprobs=2, max_tokens=0, cache=False)
    prompt_tokens = len(engine.tokenize(prompt, add_special=False, parse_special=True))
    entries = scored.echo_logprobs[prompt_tokens:]
    assert "".join(entry.text for entry in entries) == text + end
    for entry in entries:
        assert entry.id == entry.top[0].id, f"{entry.text!r} is not the likeliest"
    return min(entry.logprob - entry.top[1].logprob for entry in entries)
