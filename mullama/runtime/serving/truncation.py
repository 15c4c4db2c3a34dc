"""Fits a long conversation into the context of a model: the oldest turns go, and the answer keeps room. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mullama.chat.media_marks import media_of
from mullama.chat.model_settings import ModelSettings, opening
from mullama.chat.prompt import shortened
from mullama.chat.types import ChatRequest

_FRAME = 64  # bytes that a template writes around a message
LEAST_ROOM = 128  # tokens for an answer without a limit of its own


def room_for_answer(max_tokens: int | None, size: int) -> int:
    """Return the tokens that an answer gets in a context of `size` tokens: as many as it may have, at most half."""
    wanted = LEAST_ROOM if max_tokens is None or max_tokens < 0 else max_tokens
    return max(1, min(wanted, size // 2))


def certainly_fits(request: ChatRequest, settings: ModelSettings, size: int) -> bool:
    """Return True for a conversation so short that its tokens need not be counted: no token is shorter than a byte."""
    if request.tools or any(media_of(request.messages)):
        return False
    messages = (*opening(settings), *request.messages)
    characters = sum(len(m.text) + len(m.thinking or "") + len(str(m.tool_calls)) for m in messages)
    return 4 * characters + _FRAME * (len(messages) + 8) < size // 2


async def fitted(request: ChatRequest, limit: int, count: Callable[[ChatRequest], Awaitable[int]]) -> ChatRequest:
    """Return the request without as many of its oldest turns as the limit requires; the last turn always stays.

    limit: most tokens of the prompt. count: returns the tokens of a request's prompt; it is called about log2(turns)
    times, because fewer turns never have more tokens.
    """
    if shortened(request) is None or await count(request) <= limit:
        return request
    low, high = 1, sum(message.role == "user" for message in request.messages) - 1
    while low < high:
        middle = (low + high) // 2
        shorter = shortened(request, middle)
        if shorter is None or await count(shorter) <= limit:
            high = middle
        else:
            low = middle + 1
    return shortened(request, low) or request
