"""Reads calls whose arguments are between tags, and writes them as the JSON text of an object."""

from __future__ import annotations

from contextlib import suppress

from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.char_stream import CharStream, Malformed, Reading
from mullama.chat.reader.json_text import Out, dumps, loads
from mullama.chat.schema_types import ValueTypes, type_of
from mullama.chat.syntax import TaggedCalls
from mullama.names import JSONValue


def read_tagged(tape: CharStream, sink: CallEvents, syntax: TaggedCalls, opening: str) -> Reading[None]:
    """Read calls after `opening`, which may contain the beginning of the first one."""
    begun = bool(syntax.begin) and opening.endswith(syntax.begin)
    marks = [mark for mark in (syntax.begin, syntax.close) if mark]
    if not begun:
        yield from tape.expect(syntax.begin)
    while True:
        yield from _one_tagged(tape, sink, syntax)
        if not syntax.end:
            return  # the closing mark ended the arguments
        again = (yield from tape.choose(*marks)) == 0
        if not (again and syntax.begin):
            return


def _one_tagged(tape: CharStream, sink: CallEvents, syntax: TaggedCalls) -> Reading[None]:
    name = (yield from tape.until(syntax.named.strip()[:1] + "<\n")).strip()
    yield from tape.expect(syntax.named)
    sink.start(name)
    sink.write("{")
    first = True
    while (yield from tape.choose(syntax.key, syntax.end or syntax.close)) == 0:
        sink.write("" if first else ",")
        first = False
        yield from _argument(tape, sink, syntax, name)
    sink.write("}")
    sink.finish()


def _argument(tape: CharStream, sink: CallEvents, syntax: TaggedCalls, tool: str) -> Reading[None]:
    key = yield from tape.until(syntax.keyed.strip()[0])
    types = sink.types_of(tool, key)
    if syntax.typed:
        attributes = yield from tape.until(">")
        yield from tape.expect(">")
        types = ValueTypes() if 'string="false"' in attributes else ValueTypes(frozenset(("string",)))
    else:
        yield from tape.expect(syntax.keyed.rstrip("\n"))
    sink.write(dumps(key) + ":")
    value = _Value(sink, types, lines=syntax.keyed.endswith("\n"))
    tag = syntax.valued.strip()
    if not types.text_only:
        yield from _json_ahead(tape, tag, value.write)
    if not (yield from tape.past(tag, value.write)):
        raise Malformed
    value.end()


def _json_ahead(tape: CharStream, tag: str, out: Out) -> Reading[None]:
    """Copy a list or object up to its last bracket, because a closing tag inside its strings closes nothing.

    JSON has no tag outside its strings, so a tag there ends the value. In text that turns out not to be JSON, the first
    tag ends it.
    """
    yield from tape.spaces()
    copied, depth, quoted, escaped = "", 0, False, False
    while (char := (yield from tape.peek())) and (char in "[{" if not copied else quoted or char != tag[0]):
        copied += yield from tape.take()
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        else:
            quoted = char == '"'
            depth += (char in "[{") - (char in "]}")
            if not depth:
                break
    before, found, after = copied.partition(tag)
    if found:
        try:
            loads(copied)
        except Malformed:
            tape.put_back(found + after)
            copied = before
    out(copied)


class _Value:
    """One argument between tags: a string is streamed, any other value is written when it is complete."""

    def __init__(self, sink: CallEvents, types: ValueTypes, *, lines: bool) -> None:
        self._sink = sink
        self._types = types
        self._lines = lines
        self._begun = False
        self._held = ""
        if types.text_only:
            sink.write('"')

    def write(self, text: str) -> None:
        """Add a piece. One line break at each end belongs to the tags, so the last one is held back."""
        text = self._held + text
        if self._lines and not self._begun and text:
            text = text.removeprefix("\n")
            self._begun = True
        self._held = ""
        if not self._types.text_only:
            self._held = text
        elif self._lines and text.endswith("\n"):
            self._held = "\n"
            text = text[:-1]
        if self._types.text_only and text:
            self._sink.write(dumps(text)[1:-1])

    def end(self) -> None:
        """End the value."""
        if self._types.text_only:
            self._sink.write('"')
            return
        text = self._held.removesuffix("\n") if self._lines else self._held
        self._sink.write(dumps(_typed(text, self._types)))


_NAMES: dict[str, JSONValue] = {"true": True, "false": False, "null": None, "none": None}


def _typed(text: str, types: ValueTypes) -> JSONValue:
    """Return the value of a text without quotes, by the types that the schema allows."""
    bare = text.strip()
    value: JSONValue = text
    with suppress(Malformed):
        value = loads(bare)
    if types.values is not None:
        return _one_of(types.values, text, bare, value)
    if not types.known:
        return value
    kind = type_of(value)
    if kind in types.types and (kind in ("array", "object", "null") or "string" not in types.types):
        return value
    if "string" in types.types:
        return text
    named = _NAMES.get(bare.lower(), text)  # some models write Python's names
    return named if type_of(named) in types.types else value


def _one_of(values: tuple[JSONValue, ...], text: str, bare: str, value: JSONValue) -> JSONValue:
    """Return the listed value that the text stands for, with or without quotes; else the value as it is read."""
    for candidate in (text, bare, value, _NAMES.get(bare.lower(), text)):
        if any(type(one) is type(candidate) and one == candidate for one in values):
            return candidate
    return text if any(isinstance(one, str) for one in values) else value
