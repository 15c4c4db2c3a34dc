"""Finds the text that every conversation with a model begins with, which can be computed before the first request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mullama.chat.template.base import ChatInput, Rendered
from mullama.chat.types import Message, Tool, text_message
from mullama.struct import replace

# Two questions that share nothing: what their prompts share does not depend on the question.
_QUESTIONS = ("Aa", "0b")


class Renderer(Protocol):
    """A template, or the settings of a model."""

    def render(self, chat: ChatInput) -> Rendered: ...


def declared_prefix(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[Tool] = (), now: float = 0.0
) -> Rendered:
    """Return the longest common prefix of all prompts of conversations that begin with `messages`."""
    first, second = (
        renderer.render(ChatInput(messages=(*messages, text_message("user", question)), tools=tuple(tools), now=now))
        for question in _QUESTIONS
    )
    return replace(first, text=common_prefix(first.text, second.text))


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
