"""Splits a Go template into literal text and the tokens of its actions, with line numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mullama.errors import Invalid
from mullama.struct import Struct

_ACTION = re.compile(r"\{\{(?P<left>-(?=\s))?(?P<body>.*?)(?P<right>(?<=\s)-)?\}\}", re.DOTALL)
_QUOTED_OR_END = re.compile(r"""\"(?:\\.|[^"\\\n])*\"|`[^`]*`|'(?:\\.|[^'\\\n])*'|\}\}""")
_COMMENT = re.compile(r"\{\{(?P<left>-\s+)?/\*.*?\*/(?P<right>\s+-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    |(?P<char>'(?:\\.[^']*|[^'\\\n])')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?))
    |(?P<field>\.[A-Za-z_]\w*)
    |(?P<variable>\$\w*)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<mark>:=|=|\||,|\(|\)|\.)""",
    re.VERBOSE,
)


class Token(Struct, frozen=True):
    """One token.

    kind: text, char, number, field, variable, word, mark, or literal for text outside of actions. spaced: white space
    precedes it, which separates operands.
    """

    kind: str
    text: str
    line: int
    spaced: bool = False


class Literal(Struct, frozen=True):
    """Text outside of actions, trimmed as the neighbouring actions ask."""

    text: str
    line: int


class ActionToken(Struct, frozen=True):
    """The text between {{ and }}."""

    tokens: tuple[Token, ...]
    line: int


def lex(source: str) -> Iterator[Literal | ActionToken]:
    """Return literals and actions in order, without comments. Raises `Invalid` with the line of a malformed action."""
    at, line, trim = 0, 1, False
    while at < len(source):
        start = source.find("{{", at)
        if start < 0:
            yield Literal(source[at:].lstrip() if trim else source[at:], line)
            return
        found = _COMMENT.match(source, start) or _action(source, start)
        if found is None:
            raise wrong("an action is not closed", line + source.count("\n", at, start))
        text = source[at:start]
        line += text.count("\n")
        text = text.lstrip() if trim else text
        yield Literal(text.rstrip() if found["left"] else text, line)
        if "body" in found.groupdict():
            yield ActionToken(tuple(_tokens(found["body"], line)), line)
        line += found.group().count("\n")
        at, trim = found.end(), bool(found["right"])


def _action(source: str, start: int) -> re.Match[str] | None:
    """Return the action that begins here; closing braces inside its strings do not end it."""
    for found in _QUOTED_OR_END.finditer(source, start + 2):
        if found.group() == "}}":
            return _ACTION.fullmatch(source, start, found.end())
    return None


def _tokens(body: str, line: int) -> Iterator[Token]:
    at, spaced = 0, False
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None or found.lastgroup is None:
            raise wrong(f"{body[at : at + 20]!r} is not understood", line)
        at = found.end()
        if found.lastgroup == "space":
            spaced = True
        else:
            yield Token(found.lastgroup, found.group(), line, spaced)
            spaced = False
        line += found.group().count("\n")


def wrong(message: str, line: int) -> Invalid:
    """Return the error for a mistake in a template."""
    return Invalid(f"the template has an error in line {line}: {message}", field="template")
