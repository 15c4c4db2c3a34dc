"""The seam of templates: what a template gets, what it gives, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mullama.chat.types import Message, Tool
from mullama.names import JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTexts:
    """The texts of the vocabulary's own tokens that templates write."""

    bos: str = ""
    eos: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatInput:
    """A conversation to render. `now` is unix seconds, the only clock a template sees.

    think: None as the template does by default. generate: end with the opening of the assistant's turn.
    continue_final: the last message is the assistant's and is left open. prompt, suffix: only Go templates.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    think: bool | str | None = None
    generate: bool = True
    continue_final: bool = False
    arguments: tuple[tuple[str, JSONValue], ...] = ()
    suffix: str = ""
    now: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """The texts around a model's reasoning."""

    open: str
    close: str


ThinkSwitch = Literal["none", "always", "switch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What trial renderings found out about a template: its abilities, and the shapes it needs.

    call: how the template writes a call of the tool `PROBE_TOOL` in history, "" when it does not.
    think: none (no reasoning), always, or switch (the template obeys yes and no); levels: the named efforts
    that it tells apart. thinking: the texts around the reasoning.
    The remaining flags say which normalisation a conversation needs before this template.
    """

    tools: bool = False
    call: str = ""
    thinking: Thinking | None = None
    think: ThinkSwitch = "none"
    levels: tuple[str, ...] = ()
    suffix: bool = False
    system: bool = True
    several_system: bool = True
    late_system: bool = True
    alternate: bool = False
    tool_role: bool = True
    typed_content: bool = False
    tools_as_list: bool = False
    described: bool = False
    string_arguments: bool = False
    single_call: bool = False
    short_ids: bool = False
    thinking_or_content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The prompt text; open_think: it ends inside the model's reasoning."""

    text: str
    open_think: bool = False


class ChatTemplate(Protocol):
    """A compiled template; immutable, to be shared between threads."""

    @property
    def source(self) -> str: ...

    @property
    def syntax(self) -> Literal["jinja", "go"]: ...

    @property
    def traits(self) -> Traits: ...

    def render(self, chat: ChatInput) -> Rendered:
        """The prompt of a conversation.

        Raises `Invalid` with the template's own text when it refuses, `TooLarge` beyond its bounds.
        """
        ...
