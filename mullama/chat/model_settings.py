"""What a manifest and a file say about a model's requests, made ready once."""

from __future__ import annotations

from dataclasses import dataclass, field

from mullama.chat.families import Family, family_of
from mullama.chat.template import ChatTemplate, SpecialTexts, compile_template
from mullama.chat.types import Message, Sampling, say

# Where a file carries no template at all, the texts are all there is to go by.
BARE_TEMPLATE = "{% for m in messages %}{{ m.content }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What a manifest and a file say about a model's requests.

    name: as clients know it, for messages. template: compiled once. family: how its output is read.
    system, messages: what conversations begin with. sampling, stop, max_tokens: where a request says nothing.
    images: it has a projector. fim: its vocabulary can fill in the middle.
    """

    name: str
    template: ChatTemplate
    family: Family
    system: str | None = None
    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    images: bool = False
    fim: bool = True

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What a client may be told that the model can do in a conversation."""
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
    """Settings with the template compiled; an empty source means that the file has none.

    Raises what compiling raises. `more` are the other fields of `ModelSettings`.
    """
    template = compile_template(source or BARE_TEMPLATE, syntax, special or SpecialTexts())
    return ModelSettings(
        name=name,
        template=template,
        family=family or family_of(template),
        **more,  # type: ignore[arg-type]
    )


def opening(settings: ModelSettings) -> tuple[Message, ...]:
    """What every conversation with this model begins with, as far as the manifest says it."""
    system = (say("system", settings.system),) if settings.system else ()
    return (*system, *settings.messages)
