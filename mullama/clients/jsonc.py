"""JSON with comments and trailing commas, as editors keep their settings: read with places, and edited in place. Pure.

The standard library reads no comments, and no library keeps them on a write, so this has a scanner of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.clients import spans
from mullama.clients.base import PathStep
from mullama.clients.spans import (
    DamagedText,
    SpanForm,
    TextSpan,
    indentation_at,
    line_and_column,
    newline_of,
    plain,
)

_GAP = re.compile(r"(?:[ \t\r\n\ufeff]++|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_LINE_REST = re.compile(r"(?:[ \t]|/\*(?:[^*\n]|\*(?!/))*+\*/)*+(?://[^\r\n]*+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"true|false|null")
_MOST_DEPTH = 100


def read(text: str) -> Any:
    """Return the value of a text, None for one without a value; raise `DamagedText` with its place."""
    return plain(_parse(text))


def put(text: str, path: Sequence[PathStep], value: Any) -> str:
    """Return the text with a value at a path, whose nodes have the types of its steps."""
    return spans.put(_FORM, text, path, value)


class _Scanner:
    """Reads one value of JSON with its places."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> TextSpan:
        self._gap()
        if self.at == len(self.text):
            return TextSpan(start=self.at, end=self.at)
        root = self._value(0)
        self._gap()
        if self.at < len(self.text):
            raise self._damaged("there is text after the end of the value")
        return root

    def _value(self, depth: int) -> TextSpan:
        if depth > _MOST_DEPTH:
            raise self._damaged(f"nested deeper than {_MOST_DEPTH} levels")
        match self.text[self.at : self.at + 1]:
            case "{":
                return self._map(depth)
            case "[":
                return self._list(depth)
            case '"':
                return self._scalar(_STRING, "this text is not closed, or has a wrong escape")
            case "t" | "f" | "n":
                return self._scalar(_WORD, "a value is expected here")
            case _:
                return self._scalar(_NUMBER, "a value is expected here")

    def _scalar(self, pattern: re.Pattern[str], message: str) -> TextSpan:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self._damaged(message)
        self.at = found.end()
        try:
            value = json.loads(found[0])
        except ValueError as error:  # an integer of thousands of digits
            raise self._damaged("the number has too many digits", found.start()) from error
        return TextSpan(start=found.start(), end=found.end(), value=value)

    def _map(self, depth: int) -> TextSpan:
        span = TextSpan(start=self.at, end=0, entries={})
        assert span.entries is not None
        while self._more(span, "}"):
            if self.text[self.at] != '"':
                raise self._damaged("a key in double quotes is expected here")
            key = self._scalar(_STRING, "this key is not closed, or has a wrong escape")
            if key.value in span.entries:
                raise self._damaged(f"the key {key.value[:80]!r} is there twice", key.start)
            self._gap()
            if self.text[self.at : self.at + 1] != ":":
                raise self._damaged("a ':' is expected here")
            self.at += 1
            self._gap()
            span.entries[key.value] = (key, self._value(depth + 1))
        return span

    def _list(self, depth: int) -> TextSpan:
        span = TextSpan(start=self.at, end=0, items=[])
        assert span.items is not None
        while self._more(span, "]"):
            span.items.append(self._value(depth + 1))
        return span

    def _more(self, span: TextSpan, closing: str) -> bool:
        """Step to the next entry of a map or list; return False at its end, which is noted in the span."""
        first = self.at == span.start
        if first:
            self.at += 1
        self._gap()
        if not first and self.text[self.at : self.at + 1] == ",":
            self.at += 1
            self._gap()
        elif not first and self.text[self.at : self.at + 1] not in (closing, ""):
            raise self._damaged(f"a ',' or '{closing}' is expected here")
        if self.at == len(self.text):
            raise self._damaged("this bracket is not closed", span.start)
        if self.text[self.at] != closing:
            return True
        self.at += 1
        span.end = self.at
        return False

    def _gap(self) -> None:
        found = _GAP.match(self.text, self.at)
        self.at = found.end() if found else self.at
        if self.text.startswith("/*", self.at):
            raise self._damaged("this comment is not closed")

    def _damaged(self, message: str, at: int | None = None) -> DamagedText:
        return DamagedText(message, *line_and_column(self.text, self.at if at is None else at))


def _parse(text: str) -> TextSpan:
    return _Scanner(text).whole()


def _insert(text: str, span: TextSpan, step: PathStep, value: Any) -> str:
    newline, outer = newline_of(text), indentation_at(text, span.start)
    if not span.parts:
        inner = text[span.start + 1 : span.end - 1].rstrip()
        indent = outer + _unit(text)
        entry = _entry(step, value, newline, indent, _unit(text))
        return f"{text[: span.start + 1]}{inner}{newline}{indent}{entry}{newline}{outer}{text[span.end - 1 :]}"
    first, last = span.parts[0][0], span.parts[-1][1]
    comma = _gap_end(text, last.end)
    has_comma = text[comma : comma + 1] == ","
    if "\n" not in text[span.start : first.start] and "\n" not in text[last.end : span.end]:
        at = comma + 1 if has_comma else last.end
        return f"{text[:at]}{'' if has_comma else ','} {_entry(step, value)}{text[at:]}"
    indent = indentation_at(text, span.parts[-1][0].start)
    entry = _entry(step, value, newline, indent, _unit(text))
    if has_comma:
        at, tail = comma + 1, ","
    else:
        text = f"{text[: last.end]},{text[last.end :]}"
        at, tail = last.end + 1, ""
    at = _line_end(text, at)
    return f"{text[:at]}{newline}{indent}{entry}{tail}{text[at:]}"


def _replace(text: str, span: TextSpan, value: Any) -> str:
    newline, indent = newline_of(text), indentation_at(text, span.start)
    made = _json(value, newline, indent, _unit(text))
    if span.start == span.end:  # a text without a value: its end
        gap = newline if text and not text.endswith("\n") else ""
        return f"{text}{gap}{made}{newline}"
    return f"{text[: span.start]}{made}{text[span.end :]}"


_FORM = SpanForm(parse=_parse, insert=_insert, replace=_replace)


def _entry(step: PathStep, value: Any, newline: str = "", indent: str = "", unit: str = "") -> str:
    made = _json(value, newline, indent, unit)
    return f"{json.dumps(step, ensure_ascii=False)}: {made}" if isinstance(step, str) else made


def _json(value: Any, newline: str, indent: str, unit: str) -> str:
    """Return a value as JSON: in one line without a line end, and where it has no map."""
    is_short = not isinstance(value, Mapping) and not any(isinstance(v, Mapping) for v in _entries(value))
    if not newline or is_short:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, indent=unit).replace("\n", newline + indent)


def _entries(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _unit(text: str) -> str:
    """Return the indentation of one level, as the first indented line has it; two spaces without one."""
    found = re.search(r"^([ \t]+)[\"{\[]", text, re.MULTILINE)
    return found[1] if found else "  "


def _gap_end(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def _line_end(text: str, at: int) -> int:
    """Return the end of the line if only comments follow on it, else the offset itself."""
    found = _LINE_REST.match(text, at)
    end = found.end() if found else at
    return end if text[end : end + 1] in ("\r", "\n", "") else at
