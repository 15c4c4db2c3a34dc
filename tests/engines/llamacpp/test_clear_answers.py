"""Prompts whose answers by the built-in model have no near tie, so that tests may compare them as texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mullama.engines.base import ContextOptions, Engine
from tests.engines.engine_driver import answer, user
from tests.engines.near_tie import QUANTISED, least_gap

SYSTEM = "<|im_start|>system\nYou are a careful assistant that answers in a few plain words.<|im_end|>\n"
# The least gap of each, measured with AVX2: 7.8, 8.5, 7.8, 8.7, 7.8, 8.4, 5.6, 8.5. Rounding shifts a gap by 0.8
# at most.
CLEAR = {
    "France": user("What is the capital of France?"),
    "how": user("How are you?"),
    "who": user("Who are you?"),
    "hi": user("Hi"),
    "hello": user("Hello"),
    "system": SYSTEM + user("How are you?"),
    "France, thinking": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "who, thinking": "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n<think>\n",
}


@pytest.mark.parametrize("prompt", CLEAR.values(), ids=CLEAR)
def test_each_token_of_a_clear_answer_is_far_ahead(prompt: str, tiny_path: str, load: Callable[..., Engine]) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", ContextOptions(size=512, threads=1))
    result = answer(engine, prompt, max_tokens=60)
    assert result.ended is not None
    assert result.ended.reason == "stop"
    assert least_gap(engine, prompt, result.text) > 5 * QUANTISED
