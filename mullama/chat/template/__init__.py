"""Chat templates: render a conversation to the prompt format that a model was trained on, in Jinja or Go syntax."""

from functools import lru_cache

from mullama.chat.template.base import (
    ChatInput,
    ChatTemplate,
    Rendered,
    SpecialTexts,
    Thinking,
    Traits,
)
from mullama.chat.template.contents import contents_of, protected
from mullama.chat.template.prefix import declared_prefix
from mullama.errors import Invalid

__all__ = [
    "ChatInput",
    "ChatTemplate",
    "Rendered",
    "SpecialTexts",
    "Thinking",
    "Traits",
    "compile_template",
    "contents_of",
    "declared_prefix",
    "protected",
]


@lru_cache(maxsize=64)
def compile_template(source: str, syntax: str, special: SpecialTexts) -> ChatTemplate:
    """Compile a template of the syntax `jinja` or `go`, and try it once. Models that share a template share the result.

    Each syntax is imported at its first template.

    Raises `Invalid` or `TooLarge` with the line for a template that cannot be used.
    """
    match syntax:
        case "jinja":
            from mullama.chat.template.jinja import compile_jinja

            return compile_jinja(source, special)
        case "go":
            from mullama.chat.template.gotemplate import compile_go

            return compile_go(source)
        case _:
            raise Invalid(f"{syntax!r} is not a syntax of templates", hint="jinja or go", field="template")
