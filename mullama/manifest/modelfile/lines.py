"""Splits a Modelfile into directives: name, value and first line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from mullama.errors import Invalid
from mullama.units import size

MAX_SIZE = 4 * 1024**2  # bytes; licenses are long


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive, its `name` in upper case; value is None for an unclosed quote."""

    name: str
    value: str | None
    line: int


def decode(data: bytes) -> str:
    """Return the text of a Modelfile, in UTF-8 or in UTF-16 with a byte order mark, without control characters."""
    if len(data) > MAX_SIZE:
        raise Invalid(f"the Modelfile has {size(len(data))}, more than {size(MAX_SIZE)}")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Invalid(f"a Modelfile is UTF-8 or UTF-16 text: {error.reason} at byte {error.start}") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def directives(text: str) -> Iterator[Directive]:
    """Return the directives in order; blank lines and comments are skipped."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = at + 1
        line = lines[at].lstrip()
        at += 1
        if not line or line.startswith("#"):
            continue
        name, _, rest = _parted(line)
        words = (name.upper(), rest)
        if name.upper() in ("PARAMETER", "MESSAGE"):
            inner, _, rest = _parted(rest.lstrip())
            words = (f"{name.upper()} {inner}", rest)
        value = unquoted(words[1])
        gathered = words[1]
        while value is None and at < len(lines):
            gathered += "\n" + lines[at]
            at += 1
            value = unquoted(gathered)
        yield Directive(words[0], value, first)


def unquoted(text: str) -> str | None:
    """Return the value without its quotes; None for an unclosed quote."""
    text = text.strip()
    for quote in ('"""', '"'):
        if text.startswith(quote):
            closed = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if closed else None
    return text


def quoted(text: str) -> str | None:
    """Return the value in the quotes that it needs; None if no quotes can contain it."""
    plain = text == text.strip() and "\n" not in text and not text.startswith('"') and text != ""
    if plain:
        return text
    if '"' not in text:
        return f'"{text}"'
    if '"""' not in text and not text.endswith('"'):
        return f'"""{text}"""'
    return None


def _parted(text: str) -> tuple[str, str, str]:
    """Return the first word, the white space after it, and the rest."""
    for position, char in enumerate(text):
        if char.isspace():
            return text[:position], char, text[position + 1 :]
    return text, "", ""
