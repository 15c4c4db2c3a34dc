"""Chat templates: from a conversation to the prompt that a model was trained on, in Jinja or in Go's syntax."""

from mullama.chat.template.base import (
    ChatInput,
    Rendered,
    SpecialTexts,
    Template,
    Thinking,
    Traits,
)
from mullama.chat.template.jinja import compile_jinja
from mullama.chat.template.prefix import declared_prefix

__all__ = [
    "ChatInput",
    "Rendered",
    "SpecialTexts",
    "Template",
    "Thinking",
    "Traits",
    "compile_jinja",
    "declared_prefix",
]
