"""Splits a Modelfile into directives: name, value and first line."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator

from mullama.errors import Invalid
from mullama.struct import Struct
from mullama.units import size

OWN = "# mullama: "
"""Begins a comment with a directive and its value as a JSON string."""
_OWN_DIRECTIVE = re.compile(re.escape(OWN) + r'([A-Z_]+(?: [a-z_]+)?) ("(?:[^"\\]|\\.)*")')
MAX_SIZE = 4 * 1024**2  # bytes; licenses are long


class Directive(Struct, frozen=True):
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
        if line.startswith(OWN) and (own := _own(line.rstrip(), first)) is not None:
            yield own
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


def written(name: str, value: str) -> str:
    """Return the line of a directive from which the value is read again, in quotes that Ollama reads in the same way.

    No quotes can contain some values, such as a line that ends with three quotes, or a control character. Such a value
    is written as JSON in a comment, which `directives` reads and Ollama ignores.
    """
    for quote in ("", '"', '"""'):
        line = f"{name} {quote}{value}{quote}"
        if _reads_back(line, name, value):
            return line
    return f"{OWN}{name} {json.dumps(value)}"


def _reads_back(line: str, name: str, value: str) -> bool:
    try:
        text = decode(f"{line}\n".encode())
    except (UnicodeEncodeError, Invalid):
        return False
    return list(directives(text)) == [Directive(name, value, 1)]


def own_directives(text: str) -> tuple[str, ...]:
    """Return the names of the directives that are written in comments, which Ollama does not read."""
    lines = (line for line in text.split("\n") if line.startswith(OWN))
    return tuple(own.name for line in lines if (own := _own(line, 0)) is not None)


def _own(line: str, number: int) -> Directive | None:
    """Return the directive in a comment, None for any other comment."""
    found = _OWN_DIRECTIVE.fullmatch(line)
    if found is None:
        return None
    try:
        value = json.loads(found[2])
    except ValueError:
        return None
    return Directive(found[1], value, number)


def _parted(text: str) -> tuple[str, str, str]:
    """Return the first word, the white space after it, and the rest."""
    for position, char in enumerate(text):
        if char.isspace():
            return text[:position], char, text[position + 1 :]
    return text, "", ""
