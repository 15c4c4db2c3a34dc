"""A request is repeated after a failure before its first text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from mullama.chat import types as chat
from mullama.errors import EngineFailed, Invalid, MullamaError
from mullama.runtime.serving.repeats import events_until_text

pytestmark = pytest.mark.anyio

STARTED = chat.Started(prompt_tokens=3)
PROMPT = chat.PromptText(text="p")
PROGRESS = chat.PromptProgress(done=1, total=3)
TEXT = chat.TextDelta(text="hi")
DIES = EngineFailed("the worker was killed")

Attempt = Sequence[Sequence[chat.Event] | Exception]


async def outcome(*attempts: Attempt, blamed: bool = False) -> tuple[list[chat.Event], int, str]:
    """Return the events, the number of attempts that were made, and the error."""
    made = 0

    async def attempt() -> AsyncGenerator[Sequence[chat.Event], None]:
        nonlocal made
        made += 1
        for part in attempts[made - 1]:
            if isinstance(part, Exception):
                raise part
            yield part

    def again(error: MullamaError, started: bool) -> bool:
        assert started is bool(found)
        return isinstance(error, EngineFailed) and made < 2 and not blamed

    found: list[chat.Event] = []
    try:
        async for events in events_until_text(attempt, again):
            assert events
            found += events
    except (EngineFailed, Invalid) as error:
        return found, made, error.message
    return found, made, ""


@pytest.mark.parametrize(
    ("attempts", "expected", "made"),
    [
        ([[[STARTED], [TEXT]]], [STARTED, TEXT], 1),
        ([[DIES], [[STARTED], [TEXT]]], [STARTED, TEXT], 2),
        ([[[STARTED], DIES], [[STARTED], [TEXT]]], [STARTED, TEXT], 2),
        ([[[STARTED, PROMPT], DIES], [[STARTED, PROMPT, TEXT]]], [STARTED, PROMPT, TEXT], 2),
        ([[[STARTED], [PROGRESS], DIES], [[STARTED, PROGRESS], [TEXT]]], [STARTED, PROGRESS, PROGRESS, TEXT], 2),
    ],
)
async def test_an_answer_without_text_is_repeated_and_begins_once(
    attempts: list[Attempt], expected: list[chat.Event], made: int
) -> None:
    assert await outcome(*attempts) == (expected, made, "")


async def test_an_answer_with_text_is_not_repeated() -> None:
    assert await outcome([[STARTED], [TEXT], DIES], []) == ([STARTED, TEXT], 1, DIES.message)


async def test_a_second_death_ends_the_request() -> None:
    assert await outcome([[STARTED], DIES], [[STARTED], DIES]) == ([STARTED], 2, DIES.message)


async def test_a_request_that_ended_its_worker_itself_is_not_repeated() -> None:
    assert await outcome([[STARTED], DIES], [[TEXT]], blamed=True) == ([STARTED], 1, DIES.message)


async def test_another_failure_is_not_repeated() -> None:
    assert await outcome([[STARTED], Invalid("too long")], [[TEXT]]) == ([STARTED], 1, "too long")
