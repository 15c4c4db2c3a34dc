"""Finds the text that every conversation with a model begins with, which can be computed before the first request."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.template.base import ChatInput, ChatTemplate
from mullama.chat.types import Message, Tool, text_message

# Two questions that share nothing: what their prompts share does not depend on the question.
_QUESTIONS = ("Aa", "0b")


def declared_prefix(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Tool] = (), now: float = 0.0
) -> str:
    """Return the longest common prefix of all prompts of conversations that begin with `messages`."""
    first, second = (
        template.render(
            ChatInput(messages=(*messages, text_message("user", question)), tools=tuple(tools), now=now)
        ).text
        for question in _QUESTIONS
    )
    return common_prefix(first, second)


def common_prefix(first: str, second: str) -> str:
    """Return the common prefix of two texts."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[:middle]):
            low = middle
        else:
            high = middle - 1
    return first[:low]
