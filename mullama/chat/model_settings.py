"""Settings of one model for prompts: template, system prompt and defaults, prepared once for all requests."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat.families import Family, family_of
from mullama.chat.media import ABILITIES, MediaLimits, MediumKind
from mullama.chat.template import ChatInput, ChatTemplate, Rendered, SpecialTexts, compile_template, protected
from mullama.chat.token_texts import TokenTexts
from mullama.chat.transcription.prompts import TranscriptionSettings
from mullama.chat.types import Message, Sampling, text_message
from mullama.names import JSONValue
from mullama.struct import Struct, field, replace

# Where a file carries no template at all, the texts are all there is to go by.
BARE_TEMPLATE = "{% for m in messages %}{{ m.content }}{% if not loop.last %}\n\n{% endif %}{% endfor %}"


class ModelSettings(Struct, frozen=True, kw_only=True):
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
    think: bool | str | None = None
    """Reasoning for requests that do not choose; None for the default of the template."""
    think_budget: int | None = None
    """Most tokens of reasoning, for all requests; None for no bound."""
    arguments: tuple[tuple[str, JSONValue], ...] = ()
    """Arguments of the template; those of a request win."""
    parallel_calls: bool = True
    """Requests may allow several calls of tools in one answer."""
    fim: bool = True
    """The vocabulary has fill-in-the-middle tokens."""
    media: tuple[MediumKind, ...] = ()
    """Kinds of media that the projector of the model reads."""
    media_limits: MediaLimits = MediaLimits()
    transcription: TranscriptionSettings = TranscriptionSettings()
    """How the model writes down speech."""
    reserved: TokenTexts = field(default_factory=TokenTexts)
    """Texts that only the template writes: of control tokens, and the marks of the reasoning."""

    def render(self, chat: ChatInput) -> Rendered:
        """Render the prompt of a conversation, in which no content becomes a control token.

        Raises the errors of `ChatTemplate.render`.
        """
        think = self.think if chat.think is None else chat.think
        chat = replace(chat, think=think, arguments=(*self.arguments, *chat.arguments))
        chat, joint = protected(chat, self.reserved, self.template.traits.thinking, self.template.source)
        return replace(self.template.render(chat), joint=joint)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Return the abilities of the model in a conversation, by the names that clients know."""
        traits, converses = self.template.traits, not self.transcription.only
        found = {
            "completion": converses,
            "tools": traits.tools and converses,
            "thinking": traits.think != "none" and converses,
            "insert": (self.fim or traits.suffix) and converses,
            "transcription": not converses,
        } | {ability: kind in self.media for kind, ability in ABILITIES.items()}
        return tuple(name for name, has in found.items() if has)


def settings_for(
    name: str,
    source: str,
    *,
    syntax: str = "jinja",
    special: SpecialTexts | None = None,
    family: Family | None = None,
    control: Iterable[str] = (),
    **more: object,
) -> ModelSettings:
    """Return settings with a compiled template; an empty source means that the file has no template.

    control: the texts of the control tokens of the vocabulary. more: the other fields of `ModelSettings`.

    Raises the errors of `compile_template`.
    """
    template = compile_template(source or BARE_TEMPLATE, syntax, special or SpecialTexts())
    marks = template.traits.thinking
    return ModelSettings(
        name=name,
        template=template,
        family=family or family_of(template),
        reserved=TokenTexts((*control, *((marks.open.strip(), marks.close.strip()) if marks else ()))),
        **more,  # type: ignore[arg-type]
    )


def opening(settings: ModelSettings) -> tuple[Message, ...]:
    """Return the messages that the manifest puts before every conversation."""
    system = (text_message("system", settings.system),) if settings.system else ()
    return (*system, *settings.messages)
