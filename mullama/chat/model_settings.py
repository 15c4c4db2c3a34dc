"""Settings of one model for prompts: template, system prompt and defaults, prepared once for all requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from mullama.chat.families import Family, family_of
from mullama.chat.template import ChatTemplate, SpecialTexts, compile_template
from mullama.chat.types import Message, Sampling, text_message

# Where a file carries no template at all, the texts are all there is to go by.
BARE_TEMPLATE = "{% for m in messages %}{{ m.content }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The settings of a model that its manifest and its file give to all requests."""

    name: str
    """For messages."""
    template: ChatTemplate
    family: Family
    system: str | None = None
    """Default system prompt."""
    messages: tuple[Message, ...] = ()
    """Messages before every conversation."""
    sampling: Sampling = field(default_factory=Sampling)
    """Defaults for fields that a request leaves out."""
    stop: tuple[str, ...] = ()
    """Defaults, likewise."""
    max_tokens: int | None = None
    """Default, likewise."""
    images: bool = False
    """The model has a projector."""
    fim: bool = True
    """The vocabulary has fill-in-the-middle tokens."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Return the abilities of the model in a conversation, by the names that clients know."""
        traits = self.template.traits
        found = {
            "completion": True,
            "tools": traits.tools,
            "thinking": traits.think != "none",
            "insert": self.fim or traits.suffix,
            "vision": self.images,
        }
        return tuple(name for name, has in found.items() if has)


def settings_for(
    name: str,
    source: str,
    *,
    syntax: str = "jinja",
    special: SpecialTexts | None = None,
    family: Family | None = None,
    **more: object,
) -> ModelSettings:
    """Return settings with a compiled template; an empty source means that the file has no template.

    more: the other fields of `ModelSettings`.

    Raises the errors of `compile_template`.
    """
    template = compile_template(source or BARE_TEMPLATE, syntax, special or SpecialTexts())
    return ModelSettings(
        name=name,
        template=template,
        family=family or family_of(template),
        **more,  # type: ignore[arg-type]
    )


def opening(settings: ModelSettings) -> tuple[Message, ...]:
    """Return the messages that the manifest puts before every conversation."""
    system = (text_message("system", settings.system),) if settings.system else ()
    return (*system, *settings.messages)
