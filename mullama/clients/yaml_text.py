"""YAML configuration files: read with places, and edited in place.

The events of the manifest's parser give the places of every value, so a change touches its own lines alone. A library
that dumps the whole document would write the quotes, the indentation and the long lines of the user anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.clients import spans
from mullama.clients.base import PathStep
from mullama.clients.spans import DamagedText, SpanForm, TextSpan, line_and_column, newline_of, plain
from mullama.manifest.load.document import YamlEvents
from mullama.manifest.load.yaml_parts import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MarkedYAMLError,
    NodeEvent,
    ReaderError,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from mullama.manifest.scalars import read_plain

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.@+-]*(?:[: ][A-Za-z0-9_/.@+-]+)*")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_MOST_DEPTH = 100


def read(text: str) -> Any:
    """Return the tree of a text, None for an empty one; raise `DamagedText` with its place."""
    return plain(_parse(text))


def put(text: str, path: Sequence[PathStep], value: Any) -> str:
    """Return the text with a value at a path, whose nodes have the types of its steps."""
    return spans.put(_FORM, text, path, value)


def _parse(text: str) -> TextSpan:
    try:
        return _Reader(text).whole()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DamagedText(f"not valid YAML: {error.problem or error.context}", *place) from error
    except ReaderError as error:
        place = line_and_column(text, error.position)
        raise DamagedText(f"the character U+{error.character:04X} is not allowed in YAML", *place) from error


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._events = YamlEvents(text)
        self._anchors: set[str] = set()

    def whole(self) -> TextSpan:
        self._next()
        first = self._next()
        if isinstance(first, StreamEndEvent):
            return TextSpan(start=len(self._text), end=len(self._text))
        root = self._node(self._next(), 0, 0)
        self._next()
        if isinstance(following := self._next(), DocumentStartEvent):
            raise self._damaged(following, "a second document begins here; a file has one")
        return root

    def _next(self) -> Event:
        event: Event = self._events.get_event()  # type: ignore[no-untyped-call]
        return event

    def _node(self, event: Event, owner: int, depth: int) -> TextSpan:
        assert isinstance(event, NodeEvent)
        if depth > _MOST_DEPTH:
            raise self._damaged(event, f"nested deeper than {_MOST_DEPTH} levels")
        assert event.start_mark is not None
        assert event.end_mark is not None
        start, end = event.start_mark, event.end_mark
        span = TextSpan(start=start.index, end=end.index, column=start.column, owner=owner)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            self._anchors.add(event.anchor)
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise self._damaged(event, f"there is no anchor &{str(event.anchor)[:40]}")
            span.value = ("*", event.anchor)
        elif isinstance(event, ScalarEvent):
            span.value = _scalar(event)
        elif isinstance(event, SequenceStartEvent):
            span.items, span.brackets = [], bool(event.flow_style)
            while not isinstance(following := self._next(), SequenceEndEvent):
                span.items.append(self._node(following, span.column, depth + 1))
            self._close(span, following)
        else:
            self._map(span, event, depth)
        return span

    def _map(self, span: TextSpan, event: Event, depth: int) -> None:
        span.entries, span.brackets = {}, bool(getattr(event, "flow_style", False))
        while not isinstance(following := self._next(), MappingEndEvent):
            if not isinstance(following, ScalarEvent):
                raise self._damaged(following, "a key is a plain text")
            key = self._node(following, span.column, depth + 1)
            name = following.value
            if name in span.entries:
                raise self._damaged(following, f"the key {name[:80]!r} is there twice")
            value = self._node(self._next(), key.column, depth + 1)
            span.entries[name] = (key, value)
        self._close(span, following)

    def _close(self, span: TextSpan, event: Event) -> None:
        """Note the end of a map or list: that of its brackets, else that of its last entry, without later comments."""
        assert event.end_mark is not None
        span.end = event.end_mark.index
        if not span.brackets and span.parts:
            first, last = span.parts[-1]
            span.end = max(first.end, last.end)

    def _damaged(self, event: Event, message: str) -> DamagedText:
        mark = event.start_mark
        return DamagedText(message, *((mark.line + 1, mark.column + 1) if mark else (1, 1)))


def _scalar(event: ScalarEvent) -> Any:
    if event.tag is not None:
        return (event.tag, event.value)
    if not event.implicit[0]:
        return event.value
    try:
        return read_plain(event.value)
    except ValueError:  # a number out of range, which is compared as text
        return event.value


def _insert(text: str, span: TextSpan, step: PathStep, value: Any) -> str:
    if span.brackets:
        made = _quoted(value)
        entry = f"{_quoted(step)}: {made}" if isinstance(step, str) else made
        if not span.parts:
            return f"{text[: span.start + 1]}{entry}{text[span.start + 1 :]}"
        at = span.parts[-1][1].end
        return f"{text[:at]}, {entry}{text[at:]}"
    lines = _lines({step: value} if isinstance(step, str) else [value])
    return _with_lines(text, span.end, lines, span.column)


def _replace(text: str, span: TextSpan, value: Any) -> str:
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, Mapping) for v in value)):
        emptied = text[: span.start] + text[span.end :]
        is_root = span.start == span.end == len(text)
        return _with_lines(emptied, span.start, _lines(value), 0 if is_root else span.owner + 2)
    made = _inline(value)
    gap = " " if span.start == span.end and text[span.start - 1 : span.start] not in ("", " ", "\n") else ""
    end = newline_of(text) if text[span.start : span.end].endswith("\n") else ""
    return f"{text[: span.start]}{gap}{made}{end}{text[span.end :]}"


_FORM = SpanForm(parse=_parse, insert=_insert, replace=_replace)


def _with_lines(text: str, position: int, lines: Sequence[str], column: int) -> str:
    """Add lines below the line of a position; a position at the start of a line, after a block text, is below it."""
    newline = newline_of(text)
    starts_line = not position or text[position - 1] == "\n"
    cut = position if starts_line else text.find("\n", position) + 1 or len(text)
    head = text[:cut]
    if head and not head.endswith("\n"):
        head += newline
    return head + "".join(f"{' ' * column}{line}{newline}" for line in lines) + text[cut:]


def _lines(value: Any) -> list[str]:
    """Return a map or list as lines without indentation."""
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _field(f"{_inline(key)}:", inner)]
    made = []
    for item in value:
        first, *others = _lines(item)
        made += [f"- {first}", *(f"  {line}" for line in others)]
    return made


def _field(head: str, value: Any) -> list[str]:
    has_map = isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, Mapping) for v in value))
    return [head, *(f"  {line}" for line in _lines(value))] if has_map else [f"{head} {_inline(value)}"]


def _inline(value: Any) -> str:
    """Return a scalar or a list of scalars in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and read_plain(value) == value and value not in _WORDS:
        return value
    return _quoted(value)


def _quoted(value: Any) -> str:
    """Return a value as JSON, which is YAML where the characters that YAML does not allow or folds are escaped."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


# Words that older readers of YAML take for other values.
_WORDS = {word for name in ("yes", "no", "on", "off", "y", "n", "true", "false", "null") for word in
          (name, name.title(), name.upper())}  # fmt: skip
