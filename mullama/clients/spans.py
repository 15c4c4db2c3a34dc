"""A text as a tree of spans, so that a value can be replaced or added where it stands. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mullama.clients.base import ListEntry, PathStep
from mullama.struct import Struct


class DamagedText(ValueError):
    """The text does not have the form of its file. Line and column count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class TextSpan(Struct, kw_only=True):
    """A value of a text: a scalar, a map or a list."""

    start: int
    """Offset of its first character."""
    end: int
    """Offset behind its last character."""
    value: Any = None
    """The value of a scalar."""
    entries: dict[str, tuple[TextSpan, TextSpan]] | None = None
    """The keys and values of a map."""
    items: list[TextSpan] | None = None
    """The values of a list."""
    brackets: bool = True
    """False for a map or list of YAML that is written by its indentation."""
    column: int = 0
    """Column of its first character, from 0."""
    owner: int = 0
    """Column of its key, from 0."""

    @property
    def parts(self) -> list[tuple[TextSpan, TextSpan]]:
        """Return the first and the last span of each entry, in the order of the text."""
        if self.entries is not None:
            return list(self.entries.values())
        return [(item, item) for item in self.items or ()]

    @property
    def is_scalar(self) -> bool:
        return self.entries is None and self.items is None


class SpanForm(Struct, frozen=True, kw_only=True):
    """The three operations of a form whose texts are read as spans."""

    parse: Callable[[str], TextSpan]
    insert: Callable[[str, TextSpan, PathStep, Any], str]
    """Returns the text with an entry at the end of a map or list; the value of a list's entry is whole."""
    replace: Callable[[str, TextSpan, Any], str]
    """Returns the text with another value in place of a scalar, a null, or a list."""


def plain(span: TextSpan) -> Any:
    """Return the value of a span as dicts, lists and scalars."""
    if span.entries is not None:
        return {key: plain(value) for key, (_, value) in span.entries.items()}
    return [plain(item) for item in span.items] if span.items is not None else span.value


def put(form: SpanForm, text: str, path: Sequence[PathStep], value: Any) -> str:
    """Return the text with a value at a path."""
    span = form.parse(text)
    for depth, step in enumerate(path):
        if span.is_scalar:  # a null, as `edits.with_value` has checked
            return form.replace(text, span, nested(path[depth:], value))
        child = _find(span, step)
        if child is None:
            added = nested(path[depth + 1 :], value)
            return form.insert(text, span, step, added if isinstance(step, str) else nested((step,), added)[0])
        span = child
    if isinstance(value, Mapping) and span.entries is not None:
        for key, inner in value.items():
            text = put(form, text, (*path, key), inner)
        return text
    return text if plain(span) == value else form.replace(text, span, nested((), value))


def nested(path: Sequence[PathStep], value: Any) -> Any:
    """Return a value inside new maps and lists."""
    if isinstance(value, Mapping):
        value = {key: nested((), inner) for key, inner in value.items()}
    elif isinstance(value, tuple):
        value = list(value)
    for step in reversed(path):
        value = {step: value} if isinstance(step, str) else [{step.key: step.value, **(value or {})}]
    return value


def _find(span: TextSpan, step: PathStep) -> TextSpan | None:
    if isinstance(step, ListEntry):
        matches = (item for item in span.items or () if item.entries is not None)
        return next((i for i in matches if plain(i).get(step.key) == step.value), None)
    found = (span.entries or {}).get(step)
    return found[1] if found else None


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Return the place of an offset; both count from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def newline_of(text: str) -> str:
    """Return the line end that a text uses."""
    return "\r\n" if "\r\n" in text else "\n"


def indentation_at(text: str, offset: int) -> str:
    """Return the white space at the start of the line of an offset."""
    start = text.rfind("\n", 0, offset) + 1
    end = start
    while end < len(text) and text[end] in " \t":
        end += 1
    return text[start:end]
