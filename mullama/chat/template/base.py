"""The seam of templates: the input, the output and the traits of a template."""

from __future__ import annotations

from typing import Literal, Protocol

from mullama.chat.types import Message, Tool
from mullama.names import JSONValue
from mullama.struct import Struct


class SpecialTexts(Struct, frozen=True, kw_only=True):
    """The texts of the special tokens that templates write."""

    bos: str = ""
    eos: str = ""


class ChatInput(Struct, frozen=True, kw_only=True):
    """A conversation to render."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    think: bool | str | None = None
    """None is the default of the template."""
    generate: bool = True
    """End with the opening of the assistant's turn."""
    continue_final: bool = False
    """Leave the last message, which is the assistant's, open."""
    arguments: tuple[tuple[str, JSONValue], ...] = ()
    suffix: str = ""
    """Only Go templates read it."""
    now: float = 0.0
    """Unix seconds; the only clock of a template."""


class Thinking(Struct, frozen=True, kw_only=True):
    """The texts around the reasoning of a model."""

    open: str
    close: str


ThinkSwitch = Literal["none", "always", "switch"]


class Traits(Struct, frozen=True, kw_only=True):
    """The abilities and needs of a template, found by trial renderings.

    The flags without a description select the normalisation that a conversation needs (see `shape`).
    """

    tools: bool = False
    call: str = ""
    """Text of a call of the tool `PROBE_TOOL` in the history; empty for a template that omits calls."""
    thinking: Thinking | None = None
    """Texts around the reasoning."""
    think: ThinkSwitch = "none"
    """`none`: no reasoning; `always`; `switch`: the template obeys yes and no."""
    thinks_unasked: bool = False
    """The template reads the switch as a truth value and has no default of its own: it is true unless a request says
    otherwise."""
    levels: tuple[str, ...] = ()
    """Reasoning efforts that render differently."""
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
    text_arguments: bool = False
    single_call: bool = False
    short_ids: bool = False
    thinking_or_content: bool = False


class Rendered(Struct, frozen=True, kw_only=True):
    """The text of a prompt.

    open_think: it ends inside the reasoning of the model. joint: the character inside texts of control tokens that
    are no control tokens, because messages contributed them; it is not part of the prompt.
    """

    text: str
    open_think: bool = False
    joint: str = ""


class ChatTemplate(Protocol):
    """A compiled template. Immutable, so threads can share it."""

    @property
    def source(self) -> str: ...

    @property
    def syntax(self) -> Literal["jinja", "go"]: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def arguments(self) -> frozenset[str]:
        """The names of the arguments that requests and the manifest may set."""
        ...

    def render(self, chat: ChatInput) -> Rendered:
        """Render the prompt of a conversation.

        Raises `Invalid` with the text of the template when the template refuses, `TooLarge` beyond the bounds.
        """
        ...
