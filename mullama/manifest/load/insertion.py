"""Adds an entry to the text of a manifest. Every other character stays, also comments and the order of the keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mullama.errors import Conflict, Invalid, ManifestError, Refused
from mullama.manifest.dump import to_yaml
from mullama.manifest.load.document import DocumentBudget, YamlEvents, read_document
from mullama.manifest.load.yaml_parts import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from mullama.manifest.nodes import Fields, Items, Node
from mullama.struct import Struct, field

_NULLS = ("", "~", "null", "Null", "NULL")


class _Span(Struct, kw_only=True):
    """A node of the text: where it begins and where its last character is."""

    start: int
    end: int
    column: int
    """Of its first character."""
    entries: dict[str, tuple[_Span, _Span]] | None = None
    """The keys and values of a map."""
    braces: bool = False
    null: bool = False
    last: _Span | None = field(default=None)
    """The last value of a map or list."""

    @property
    def ends(self) -> int:
        """The end of its last character, without the comments that follow a block."""
        return self.end if self.last is None or self.braces else max(self.last.ends, self.start)


def insert_entry(text: str, path: Sequence[str], value: Any) -> str:
    """Return the text with `value` at the keys of `path`, the last of which is new; maps on the way are made.

    Raises `ManifestError` for a text that is not YAML, `Conflict` for an entry that exists, and `Refused` where a key
    of the path has no map that the text writes out, such as one of an alias.
    """
    before = _tree(text)
    if before is not None and not isinstance(before, dict):
        raise Invalid("the text is not a manifest: a map of keys and values is expected")
    wanted = _with_entry(before or {}, path, value)
    made = _inserted(text, _span_of(text) if before is not None else None, path, value)
    try:
        is_right = _tree(made) == wanted
    except ManifestError:
        is_right = False
    if not is_right:
        raise Refused(
            f"{'.'.join(path)} cannot be added to this text without changing more of it",
            hint="write the lines into the manifest by hand",
        )
    return made


def _inserted(text: str, span: _Span | None, path: Sequence[str], value: Any) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if span is None:
        return _with_lines(text, len(text), _lines(path, value, 0), newline)
    for depth, name in enumerate(path):
        entries = span.entries or {}
        if name not in entries:
            return _added(text, span, path[depth:], value, newline)
        key, span = entries[name]
        if span.null:
            emptied = text[: span.start] + text[span.end :]
            return _with_lines(
                emptied, span.start, _lines(path[depth + 1 :], value, key.column + 2), newline
            )  # below the key
        if span.entries is None:
            break
    raise _not_written_out(path)


def _added(text: str, span: _Span, path: Sequence[str], value: Any, newline: str) -> str:
    """Add an entry to a map."""
    if span.braces:
        entry = json.dumps({path[0]: _nested(path[1:], value)}, ensure_ascii=False)[1:-1]
        if span.last is None:
            return f"{text[: span.start + 1]}{entry}{text[span.start + 1 :]}"
        return f"{text[: span.last.ends]}, {entry}{text[span.last.ends :]}"
    column = next(iter(span.entries.values()))[0].column if span.entries else 0
    return _with_lines(text, span.ends, _lines(path, value, column), newline)


def _with_lines(text: str, position: int, lines: Sequence[str], newline: str) -> str:
    """Add lines below the line of a position; a position at the start of a line, after a block text, is below it."""
    starts_line = not position or text[position - 1] == "\n"
    cut = position if starts_line else text.find("\n", position) + 1 or len(text)
    head = text[:cut]
    if head and not head.endswith("\n"):
        head += newline
    return head + "".join(f"{line}{newline}" for line in lines) + text[cut:]


def _lines(path: Sequence[str], value: Any, column: int) -> list[str]:
    return [" " * column + line for line in to_yaml(_nested(path, value)).splitlines()]


def _nested(path: Sequence[str], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def _with_entry(tree: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    name, *rest = path
    if not rest:
        if name in tree:
            raise Conflict(f"{name} is declared already", hint="choose another name")
        return {**tree, name: value}
    inner = tree.get(name)
    if inner is not None and not isinstance(inner, dict):
        raise _not_written_out(path)
    return {**tree, name: _with_entry(inner or {}, rest, value)}


def _not_written_out(path: Sequence[str]) -> Refused:
    return Refused(
        f"{path[0]} of this manifest has no keys of its own to which {path[-1]} can be added",
        hint="write the lines into the manifest by hand",
    )


def _tree(text: str) -> Any:
    return _plain(read_document(text.encode(), "the text", DocumentBudget()).root)


def _plain(node: Node) -> Any:
    if isinstance(node, Fields):
        return {key: _plain(value) for key, value in node.entries.items()}
    if isinstance(node, Items):
        return [_plain(item) for item in node.items]
    return node.value


def _span_of(text: str) -> _Span:
    """Return the span of the root of a text that `read_document` accepts."""
    events = YamlEvents(text)

    def following() -> Iterator[Event]:
        while True:
            yield events.get_event()  # type: ignore[no-untyped-call]

    stream = following()
    next(stream), next(stream)  # the starts of the stream and of the document
    return _read(next(stream), stream)


def _read(event: Event, stream: Iterator[Event]) -> _Span:
    assert isinstance(event, NodeEvent)
    start, end = event.start_mark, event.end_mark
    assert start is not None
    assert end is not None
    span = _Span(start=start.index, end=end.index, column=start.column)
    if isinstance(event, ScalarEvent):
        span.null = event.implicit[0] and event.value in _NULLS and event.anchor is None
    elif isinstance(event, SequenceStartEvent):
        span.braces = bool(event.flow_style)
        while not isinstance(following := next(stream), SequenceEndEvent):
            span.last = _read(following, stream)
        span.end = _index(following)
    elif isinstance(event, CollectionStartEvent):
        span.entries, span.braces = {}, bool(event.flow_style)
        while not isinstance(following := next(stream), MappingEndEvent):
            assert isinstance(following, ScalarEvent)
            key = _read(following, stream)
            span.last = _read(next(stream), stream)
            span.last = span.last if span.last.ends > key.end else key
            span.entries[following.value] = (key, span.last)
        span.end = _index(following)
    else:
        assert isinstance(event, AliasEvent)
    return span


def _index(event: Event) -> int:
    assert event.end_mark is not None
    return int(event.end_mark.index)
