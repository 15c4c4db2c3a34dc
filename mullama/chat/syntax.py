"""How families of models write a call of a tool: plain values, read by `chat.reader` and by `chat.constraint`.

One description serves both sides, so what a grammar lets a model write is what the reader understands.
White space between the parts is never significant to the reader; the grammar writes it as given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCalls:
    """`open` {"name": …, "arguments": {…}} `close`, or a list of such objects.

    open "" means that a call begins the answer, with nothing to announce it. gap stands inside the marks.
    between: what stands between two calls. one_list: all calls in one JSON list. name_is_key: {"the name": {…}}.
    aliases: further openings that the reader accepts.
    """

    open: str
    close: str = ""
    gap: str = ""
    between: str = "\n"
    one_list: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    name_is_key: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCalls:
    """`open` then per call `begin` NAME `middle` {…} `end`, then `close`.

    ordinal: `:0` counts the calls after the name. id_mark: an optional call id follows the name, after this mark.
    lists: the reader also accepts a JSON list of calls after `open` (Mistral's older form).
    """

    open: str
    begin: str = ""
    middle: str = ""
    end: str = ""
    close: str = ""
    ordinal: bool = False
    id_mark: str = ""
    lists: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCalls:
    """`open` then per call `begin` NAME `named`, per argument `key` KEY `keyed` VALUE `valued`, then `end`, `close`.

    A value of type string stands there as it is, any other as JSON. typed: the tag of an argument says
    string="true" or "false". aliases: further openings, each equal to `open` followed by `begin` or to `begin`.
    """

    open: str
    begin: str
    named: str
    key: str
    keyed: str
    valued: str
    end: str
    close: str
    typed: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BraceCalls:
    """`open` call:NAME{key:value,…} `close`, with strings between two `quote` marks (Gemma)."""

    open: str
    close: str
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCalls:
    """`open` [name(key="value", …), …] `close`: calls as Python writes them."""

    open: str
    close: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCalls:
    """The harmony format: every message names its channel, a call names its recipient."""


CallSyntax = JsonCalls | NamedCalls | TaggedCalls | BraceCalls | PythonCalls | ChannelCalls


def openings(syntax: CallSyntax) -> tuple[str, ...]:
    """The texts that announce a call; empty when only its place at the beginning does."""
    texts: tuple[str, ...]
    match syntax:
        case JsonCalls() | NamedCalls() | TaggedCalls() | PythonCalls():
            texts = (syntax.open, *syntax.aliases)
        case BraceCalls():
            texts = (syntax.open,)
        case ChannelCalls():
            texts = ()
        case _:
            assert_never(syntax)
    return tuple(text.strip() for text in texts if text)
