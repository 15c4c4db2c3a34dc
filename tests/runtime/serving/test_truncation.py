"""A long conversation loses its oldest turns at once, and the answer keeps room."""

from __future__ import annotations

import asyncio

import pytest

from mullama.chat.types import ChatRequest, text_message
from mullama.runtime.serving.truncation import fitted, room_for_answer


@pytest.mark.parametrize(
    ("max_tokens", "size", "room"),
    [(8, 512, 8), (None, 512, 128), (-1, 8192, 128), (400, 512, 256), (None, 64, 32), (0, 512, 1), (1, 1, 1)],
)
def test_the_answer_keeps_room(max_tokens: int | None, size: int, room: int) -> None:
    assert room_for_answer(max_tokens, size) == room


def conversation(turns: int) -> ChatRequest:
    pairs = [(text_message("user", f"q{i}"), text_message("assistant", f"a{i}")) for i in range(turns - 1)]
    messages = [message for pair in pairs for message in pair]
    return ChatRequest(model="m", messages=(text_message("system", "S"), *messages, text_message("user", "last")))


@pytest.mark.parametrize(
    ("turns", "limit", "kept"), [(2000, 11, 5), (2000, 4001, 2000), (200, 1, 1), (2, 3, 1), (1, 0, 1)]
)
def test_as_few_turns_go_as_the_limit_requires(turns: int, limit: int, kept: int) -> None:
    counted: list[int] = []

    async def count(request: ChatRequest) -> int:
        counted.append(len(request.messages))
        return len(request.messages)

    short = asyncio.run(fitted(conversation(turns), limit, count))
    users = [m.text for m in short.messages if m.role == "user"]
    assert len(users) == kept
    assert (short.messages[0].text, short.messages[-1].text) == ("S", "last")
    assert len(counted) <= 13
