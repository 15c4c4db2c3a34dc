"""The bound on the reasoning: as a value, and in the answers of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.types import Constraint, ReasoningLimit
from mullama.engines.base import ContextOptions, Engine
from mullama.engines.llamacpp.sampling.reasoning_budget import ReasoningBudget
from tests.engines.engine_driver import Driver, Result, answer, ask

CLOSING = "\n</think>\n\n"


def limit(tokens: int, *, inside: bool = True) -> ReasoningLimit:
    return ReasoningLimit(tokens=tokens, open="<think>", close="</think>", closing=CLOSING, inside=inside)


def closes_after(budget: ReasoningBudget, pieces: list[bytes], *, within: int = 0) -> int | None:
    """The number of tokens after which the reasoning is closed; the last `within` of them end inside a character."""
    for count in range(len(pieces) + 1):
        if budget.closing(within_character=count > len(pieces) - within):
            return count
        if count < len(pieces):
            budget.add(pieces[count])
    return None


@pytest.mark.parametrize(
    ("tokens", "inside", "pieces", "closed"),
    [
        (0, True, ["a"], 0),
        (2, True, ["a", "b", "c"], 2),
        (3, True, ["a", "</think>", "b", "c", "d"], None),
        (3, True, ["a", "</th", "ink>", "b", "c"], None),
        (2, False, ["a", "b", "c", "d"], None),
        (2, False, ["<think>", "b", "c", "d"], 3),
        (2, False, ["<th", "ink>", "b", "c", "d"], 4),
        (0, False, ["<think>", "b"], 1),
        (2, False, ["<think>", "b", "</think>", "c", "d", "e"], None),
    ],
)
def test_it_counts_the_tokens_between_the_marks(
    tokens: int, inside: bool, pieces: list[str], closed: int | None
) -> None:
    budget = ReasoningBudget(limit(tokens, inside=inside), [7, 8])
    assert closes_after(budget, [piece.encode() for piece in pieces]) == closed


@given(st.integers(0, 30), st.lists(st.sampled_from([b"a", b"<think>", b"</think>", b"</", b"think>"]), max_size=40))
def test_it_closes_once_and_never_before_the_bound(tokens: int, pieces: list[bytes]) -> None:
    budget = ReasoningBudget(limit(tokens), [7])
    closed = closes_after(budget, pieces)
    assert closed is None or closed == tokens
    assert budget.closing(within_character=False) == () or closed is None


def test_it_waits_for_the_end_of_a_character_but_not_for_ever() -> None:
    pieces = [b"a"] * 30
    assert closes_after(ReasoningBudget(limit(5), [7]), pieces, within=20) == 5
    assert closes_after(ReasoningBudget(limit(5), [7]), pieces, within=30) == 13


THINKS = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n<think>\n"
OPENS = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def engine(load: Callable[..., Engine], tiny_path: str) -> Engine:
    made = load("llamacpp", tiny_path)
    made.open_context("main", ContextOptions(size=512, parallel=2, threads=1))
    return made


def reasoning(result: Result) -> str:
    return result.text.removeprefix("<think>").partition("</think>")[0]


@pytest.mark.parametrize(("prompt", "inside"), [(THINKS, True), (OPENS, False)])
@pytest.mark.parametrize("more", [{}, {"logprobs": 2}])
def test_the_reasoning_is_closed_at_its_bound_and_the_answer_follows(
    prompt: str, inside: bool, more: dict[str, Any], engine: Engine
) -> None:
    free = answer(engine, prompt, max_tokens=120, **more)
    bound = answer(engine, prompt, max_tokens=120, reasoning=limit(3, inside=inside), **more)

    assert len(reasoning(free)) > len(reasoning(bound))
    assert CLOSING in bound.text
    assert free.text.startswith(bound.text.partition(CLOSING)[0]), "up to the bound nothing changes"
    assert bound.text.partition(CLOSING)[2], "the answer follows"
    assert bound.ended is not None
    assert bound.ended.reason == "stop"
    assert bound.ended.completion_tokens < free.ended.completion_tokens  # type: ignore[union-attr]


def test_a_bound_that_is_not_reached_changes_nothing(engine: Engine) -> None:
    assert (
        answer(engine, THINKS, max_tokens=120, reasoning=limit(500)).text == answer(engine, THINKS, max_tokens=120).text
    )


def test_a_bound_of_zero_closes_the_reasoning_at_once(engine: Engine) -> None:
    assert answer(engine, THINKS, max_tokens=60, reasoning=limit(0)).text.startswith(CLOSING)


@pytest.mark.parametrize("space", ["", r"/[ \n]{0,2}/ "])
def test_a_grammar_that_begins_after_the_reasoning_holds(space: str, engine: Engine) -> None:
    constraint = Constraint(grammar=f'start: {space}("true" | "false")', after="</think>", repeat=False)
    found = answer(engine, THINKS, max_tokens=60, reasoning=limit(2), constraint=constraint)
    assert found.text.partition("</think>")[2].strip() in ("true", "false")


def test_requests_with_and_without_a_bound_decode_together(engine: Engine) -> None:
    free = answer(engine, THINKS, max_tokens=60)
    jobs = (ask(1, THINKS, max_tokens=60), ask(2, THINKS, max_tokens=60, reasoning=limit(2)))
    both = Driver(engine).submit(*jobs).run()
    assert both[1].text == free.text
    assert free.text.startswith(both[2].text.partition(CLOSING)[0])
    assert CLOSING in both[2].text
