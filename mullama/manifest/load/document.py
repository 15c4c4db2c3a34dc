"""Reads YAML (JSON is YAML) as a tree with places, within limits.

It uses the events of the pure-Python parser and no loader: deep nesting crashes the C parser, and loaders construct
objects from tags. Aliases share nodes and count against a budget, which stops exponential documents.
"""

from __future__ import annotations

import re
from typing import Any

from mullama.errors import ManifestError
from mullama.manifest.load.yaml_parts import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MarkedYAMLError,
    NodeEvent,
    Parser,
    Reader,
    ReaderError,
    ScalarEvent,
    ScalarToken,
    Scanner,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from mullama.manifest.nodes import Fields, Items, Leaf, Node
from mullama.manifest.scalars import read_plain
from mullama.problems import Location, Problem
from mullama.struct import Struct, field
from mullama.units import size

MOST_BYTES = 1024 * 1024
MOST_DEPTH = 20
MOST_KEY = 512


class DocumentBudget(Struct):
    """The nodes that all documents of one manifest may still use."""

    nodes: int = 100_000
    aliased: int = 20_000
    merges: int = 100


class Document(Struct):
    """The tree of a file, null for an empty file, and the mistakes after which reading continued."""

    root: Node
    problems: list[Problem] = field(default_factory=list)


def read_document(data: bytes, name: str, allowance: DocumentBudget) -> Document:
    """Return the tree of a file; raise `ManifestError` if it is not UTF-8, not YAML, or over a limit."""
    return _Builder(_decode(data, name), name, allowance).document()


def _decode(data: bytes, name: str) -> str:
    if len(data) > MOST_BYTES:
        raise _failure(name, None, f"the file is larger than {size(MOST_BYTES)}", "split it with include")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise _failure(name, Location(name, line, column), "the file is not UTF-8", "save it as UTF-8") from error


def _failure(name: str, place: Location | None, message: str, hint: str = "") -> ManifestError:
    return ManifestError((Problem("", place or Location(name, 1, 1), message, hint),))


_BREAK = r"\0 \t\r\n\x85\u2028\u2029"
_WORD = re.compile(rf"(?:[^{_BREAK}:]++|:(?![{_BREAK}]))++")
_WORD_IN_BRACKETS = re.compile(rf"(?:[^{_BREAK}:,\[\]{{}}]++|:(?![{_BREAK},\[\]{{}}]))++")


class YamlEvents(Reader, Scanner, Parser):
    """PyYAML's event parser over a text."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def need_more_tokens(self) -> bool:
        """Do the same as the scanner, but remove stale keys only if there are any, instead of at each call."""
        if self.done or not self.tokens:
            return not self.done
        keys = self.possible_simple_keys
        if not keys:
            return False
        line, index = self.line, self.index
        if any(key.line != line or index - key.index > 1024 for key in keys.values()):
            self.stale_possible_simple_keys()
        nearest: int | None = self.next_possible_simple_key()  # type: ignore[no-untyped-call]
        return nearest == self.tokens_taken

    def scan_plain(self) -> ScalarToken:
        """Scan a plain scalar by the rules of YAML 1.2, where a scalar in brackets may contain a question mark."""
        parts: list[str] = []
        spaces: list[str] = []
        start = end = self.get_mark()
        indent = self.indent + 1
        word = _WORD_IN_BRACKETS if self.flow_level else _WORD
        while self.peek() != "#" and (found := word.match(self.buffer, self.pointer)):
            self.allow_simple_key = False
            parts += [*spaces, found[0]]
            length = len(found[0])
            self.pointer += length
            self.index += length
            self.column += length
            end = self.get_mark()
            spaces = self.scan_plain_spaces(indent, start) or []
            if not spaces or (not self.flow_level and self.column < indent):
                break
        return ScalarToken("".join(parts), True, start, end)


class _Builder:
    def __init__(self, text: str, name: str, allowance: DocumentBudget) -> None:
        self._text = text
        self._name = name
        self._allowance = allowance
        self._problems: list[Problem] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        self._size = 0
        self._deepest = 0
        self._brackets: list[Any] = []  # marks of the open flow collections, None for block ones

    def document(self) -> Document:
        try:
            self._events = YamlEvents(self._text)
            return Document(self._root(), self._problems)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if "<stream end>" in (error.problem or "") and self._brackets and self._brackets[-1]:
                mark = self._brackets[-1]  # far before the end of the text
            message, hint = _plain_words(error)
            opened = self._brackets[-1] if self._brackets else None
            if opened and mark and "expected ','" in (error.problem or "") and mark.line > opened.line:
                message, mark = f"this bracket is not closed before line {mark.line + 1}", opened
            place = Location(self._name, mark.line + 1, mark.column + 1) if mark else None
            if mark and "${" in self._line(mark.line) and "brackets" in hint:
                hint = "in { } or [ ], put quotes around text with ${…}"
            raise _failure(self._name, place, message, hint) from error
        except ReaderError as error:
            place = self._place_of_offset(error.position)
            message = f"the character U+{error.character:04X} is not allowed in a manifest"
            raise _failure(self._name, place, message, "remove it") from error
        except ValueError as error:
            # Raised by the scanner for an escape beyond Unicode or a %YAML version of a thousand digits.
            mark = self._events.get_mark()
            place = Location(self._name, mark.line + 1, mark.column + 1)
            raise _failure(self._name, place, "a number is out of range") from error

    def _next(self) -> Event:
        event: Event = self._events.get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, CollectionStartEvent):
            self._brackets.append(event.start_mark if event.flow_style else None)
        elif isinstance(event, (SequenceEndEvent, MappingEndEvent)):
            self._brackets.pop()
        return event

    def _root(self) -> Node:
        self._next()
        if isinstance(self._next(), StreamEndEvent):
            return Leaf(None, Location(self._name, 1, 1))
        root = self._node(self._next(), 1)
        self._next()
        if isinstance(following := self._next(), DocumentStartEvent):
            raise self._fail(following, "a second document begins here", "a file has one document")
        return root

    def _node(self, event: Event, depth: int) -> Node:
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        assert isinstance(event, (ScalarEvent, CollectionStartEvent))
        if depth > MOST_DEPTH:
            raise self._fail(event, f"nested deeper than {MOST_DEPTH} levels")
        self._spend(event)
        if event.tag is not None:
            raise self._fail(event, f"the tag {event.tag[:40]!r} is not allowed", "write the plain value")
        if event.anchor is None:
            return self._bare(event, depth)
        return self._anchored(event, event.anchor, depth)

    def _bare(self, event: NodeEvent, depth: int) -> Node:
        self._deepest = max(self._deepest, depth)
        if isinstance(event, ScalarEvent):
            return Leaf(self._value(event), self._place(event))
        if isinstance(event, SequenceStartEvent):
            return self._items(event, depth)
        return self._fields(event, depth)

    def _anchored(self, event: NodeEvent, anchor: str, depth: int) -> Node:
        """Record the number and depth of the nodes of an anchor, which are the cost of an alias."""
        before, deepest, self._deepest = self._size, self._deepest, depth
        self._anchors[anchor] = None
        node = self._bare(event, depth)
        self._anchors[anchor] = (node, self._size - before + 1, self._deepest - depth)
        self._deepest = max(deepest, self._deepest)
        return node

    def _alias(self, event: AliasEvent, depth: int) -> Node:
        name = str(event.anchor)
        if name not in self._anchors:
            raise self._fail(event, f"there is no anchor &{name[:40]}")
        if (known := self._anchors[name]) is None:
            raise self._fail(event, f"*{name[:40]} refers to a node that contains it")
        node, size, height = known
        if depth + height > MOST_DEPTH:
            raise self._fail(event, f"nested deeper than {MOST_DEPTH} levels")
        self._deepest = max(self._deepest, depth + height)
        self._charge(event, size)
        return node

    def _items(self, event: SequenceStartEvent, depth: int) -> Items:
        items = []
        while not isinstance(child := self._next(), SequenceEndEvent):
            items.append(self._node(child, depth + 1))
        return Items(tuple(items), self._place(event))

    def _fields(self, event: Event, depth: int) -> Fields:
        entries: dict[str, Node] = {}
        keys: dict[str, Location] = {}
        merged: list[tuple[ScalarEvent, Node]] = []
        while not isinstance(key := self._next(), MappingEndEvent):
            name = self._key(key)
            place = self._place(key)
            value = self._node(self._next(), depth + 1)
            if name == "<<" and isinstance(key, ScalarEvent) and key.implicit[0]:
                merged.append((key, value))
            elif name in entries:
                self._problems.append(_twice(name, place, keys[name]))
            else:
                entries[name], keys[name] = value, place
        for at, value in merged:
            self._merge(at, value, entries, keys)
        return Fields(entries, keys, self._place(event))

    def _key(self, event: Event) -> str:
        if not isinstance(event, ScalarEvent) or event.tag is not None or event.anchor is not None:
            raise self._fail(event, "a key must be a plain scalar", "quote it if it begins with a special character")
        self._spend(event)
        if len(event.value) > MOST_KEY:
            raise self._fail(event, f"a key of {len(event.value)} characters", f"the limit is {MOST_KEY}")
        return self._text_of(event)

    def _merge(self, at: ScalarEvent, value: Node, entries: dict[str, Node], keys: dict[str, Location]) -> None:
        """Add the entries of the maps of `<<` whose keys the map does not have; the first map wins."""
        for source in value.items if isinstance(value, Items) else (value,):
            if not isinstance(source, Fields):
                raise self._fail(at, "<< takes a map or a list of maps")
            self._allowance.merges -= 1
            if self._allowance.merges < 0:
                raise self._fail(at, "more than 100 merges with <<", "use defaults or like")
            self._charge(at, len(source.entries))
            for key, node in source.entries.items():
                if key not in entries:
                    entries[key], keys[key] = node, source.keys[key]

    def _value(self, event: ScalarEvent) -> str | int | float | bool | None:
        if not event.implicit[0]:
            return self._text_of(event)
        try:
            return read_plain(event.value)
        except ValueError as error:
            raise self._fail(event, str(error), "put quotes around it if it is text") from error

    def _text_of(self, event: ScalarEvent) -> str:
        text: str = event.value
        if event.style != '"':
            return text
        if "\0" in text:
            raise self._fail(event, "the character NUL is not allowed in a manifest")
        if any("\ud800" <= c <= "\udfff" for c in text):
            # JSON writes a character beyond the basic plane as two escapes.
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError as error:
                raise self._fail(event, "this text contains half of a surrogate pair") from error
        return text

    def _spend(self, event: Event) -> None:
        self._size += 1
        self._allowance.nodes -= 1
        if self._allowance.nodes < 0:
            raise self._fail(event, "the manifest has more than 100,000 values and keys")

    def _charge(self, event: Event, nodes: int) -> None:
        self._size += nodes
        self._allowance.aliased -= nodes
        if self._allowance.aliased < 0:
            raise self._fail(event, "aliases and merges expand to more than 20,000 values", "use defaults or like")

    def _place(self, event: Event) -> Location:
        mark = event.start_mark
        assert mark is not None
        return Location(self._name, mark.line + 1, mark.column + 1)

    def _fail(self, event: Event, message: str, hint: str = "") -> ManifestError:
        return ManifestError((*self._problems, Problem("", self._place(event), message, hint)))

    def _line(self, number: int) -> str:
        lines = self._text.splitlines()
        return lines[number] if number < len(lines) else ""

    def _place_of_offset(self, offset: int) -> Location:
        before = self._text[:offset]
        return Location(self._name, before.count("\n") + 1, offset - before.rfind("\n"))


def _twice(name: str, place: Location, first: Location) -> Problem:
    return Problem(name[:80], place, f"this key is already used at {first}", "keep one of them")


# Messages of the parser: (pattern, message for the author of a manifest, hint). The pattern selects the wording only.
_WORDS = (
    (r"<stream end>", "this bracket is not closed", "close it"),
    (r"'\\t' that cannot start", "a tab is used for indentation", "indent with spaces"),
    (r"cannot start any token", "a plain scalar cannot begin with this character", "put quotes around the text"),
    (r"mapping values", "a ':' is not allowed here", "check the indentation, or quote the text"),
    (r"could not find expected ':'", "this key has no ':'", "write `key: value`; quote text of several lines"),
    (r"sequence entries", "a list cannot begin here", "put `-` on a line of its own"),
    (r"expected <block end>", "the indentation does not fit the lines above", "align it with them"),
    (r"expected ',' or", "a list or map in brackets is not closed here", "check commas and brackets"),
    (r"end of stream", "a quoted text is not closed", "close the quotes"),
    (r"document separator", "a document separator is inside quoted text", "close the quotes"),
    (r"unknown escape", "an unknown escape in double quotes", "double the backslash, or use single quotes"),
    (r"hexadecimal numbers", "an escape in double quotes is not complete", "for example \\u0041"),
    (r"tag|expected '!'|URI", "a tag, which is not allowed", "write the plain value, or quote the text"),
    (r"alphabetic or numeric", "no name after &, * or %", "quote text that begins with such a character"),
    (r"YAML directive|YAML document|digit", "the %YAML line cannot be read", "remove it"),
    (r"<document start>", "there is text after the end of the document", "check the brackets above"),
    (r"indentation indicator|chomping", "the indicator after | or > is wrong", "write | or > alone"),
    (r"comment or a line break", "there is text where the line should end", "put it on the next line"),
    (r"node content", "a value is missing here", "quote it if it begins with a special character"),
)


def _plain_words(error: MarkedYAMLError) -> tuple[str, str]:
    reason = error.problem or error.context or "the text is not valid YAML"
    for pattern, message, hint in _WORDS:
        if re.search(pattern, reason):
            return message, hint
    return f"not valid YAML: {reason}", ""
