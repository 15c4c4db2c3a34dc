"""The syntaxes of tool calls of model families, as plain values that `chat.reader` and `chat.constraint` share.

A grammar therefore allows exactly the text that the reader accepts. White space between the parts is not significant
to the reader; the grammar writes it as given here.
"""

from __future__ import annotations

from typing import assert_never

from mullama.struct import Struct


class JsonCalls(Struct, frozen=True, kw_only=True):
    """`open` {"name": …, "arguments": {…}} `close`, or a list of such objects."""

    open: str
    """Empty for a call that begins the answer without a mark."""
    close: str = ""
    gap: str = ""
    """Text inside the marks."""
    between: str = "\n"
    """Text between two calls."""
    one_list: bool = False
    """All calls are in one JSON list."""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    name_is_key: bool = False
    """The form {"the name": {…}}."""
    aliases: tuple[str, ...] = ()
    """Further openings that the reader accepts."""


class NamedCalls(Struct, frozen=True, kw_only=True):
    """`open`, then for each call `begin` NAME `middle` {…} `end`, then `close`."""

    open: str
    begin: str = ""
    middle: str = ""
    end: str = ""
    close: str = ""
    ordinal: bool = False
    """`:0` after the name counts the calls."""
    id_mark: str = ""
    """Mark before an optional call id after the name."""
    lists: bool = False
    """The reader accepts a JSON list of calls after `open` (Mistral's older form)."""
    aliases: tuple[str, ...] = ()


class TaggedCalls(Struct, frozen=True, kw_only=True):
    """`open`; for each call `begin` NAME `named`, for each argument `key` KEY `keyed` VALUE `valued`, `end`; `close`.

    A string value is written without quotes, any other value as JSON.
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
    """The tag of an argument has string="true" or "false"."""
    aliases: tuple[str, ...] = ()
    """Further openings, each equal to `open` followed by `begin`, or to `begin`."""


class BraceCalls(Struct, frozen=True, kw_only=True):
    """`open` call:NAME{key:value,…} `close`, with strings between two `quote` marks (Gemma)."""

    open: str
    close: str
    quote: str


class PythonCalls(Struct, frozen=True, kw_only=True):
    """`open` [name(key="value", …), …] `close`: calls in Python notation."""

    open: str
    close: str
    aliases: tuple[str, ...] = ()


class ChannelCalls(Struct, frozen=True, kw_only=True):
    """The harmony format: each message names its channel, and a call names its recipient."""


CallSyntax = JsonCalls | NamedCalls | TaggedCalls | BraceCalls | PythonCalls | ChannelCalls


def openings(syntax: CallSyntax) -> tuple[str, ...]:
    """Return the texts that announce a call; empty for a call that only the beginning of an answer announces."""
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


def closing(syntax: CallSyntax) -> str:
    """Return the text that ends a call; empty where only the end of its arguments does."""
    match syntax:
        case NamedCalls() | TaggedCalls():
            return (syntax.close or syntax.end).strip()
        case JsonCalls() | BraceCalls() | PythonCalls():
            return syntax.close.strip()
        case ChannelCalls():
            return ""
        case _:
            assert_never(syntax)
