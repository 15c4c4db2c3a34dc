"""The text that every conversation with a model begins with, so that it can be computed before the first one."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.template.base import ChatInput, ChatTemplate
from mullama.chat.types import Message, Tool, say

# Two questions that share nothing: what their prompts share does not depend on the question.
_QUESTIONS = ("Aa", "0b")


def declared_prefix(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Tool] = (), now: float = 0.0
) -> str:
    """The longest text that all prompts begin with when conversations begin with `messages`."""
    first, second = (
        template.render(ChatInput(messages=(*messages, say("user", question)), tools=tuple(tools), now=now)).text
        for question in _QUESTIONS
    )
    return common_prefix(first, second)


def common_prefix(first: str, second: str) -> str:
    """What both texts begin with."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[:middle]):
            low = middle
        else:
            high = middle - 1
    return first[:low]
