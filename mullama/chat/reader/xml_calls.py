"""Reads calls whose arguments are between tags, and writes them as the JSON text of an object."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.char_stream import CharStream, Malformed, Reading
from mullama.chat.reader.json_text import Out, dumps, loads
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
    text_only = _is_text(sink.schema_of(tool, key))
    if syntax.typed:
        attributes = yield from tape.until(">")
        yield from tape.expect(">")
        text_only = 'string="false"' not in attributes
    else:
        yield from tape.expect(syntax.keyed.rstrip("\n"))
    sink.write(dumps(key) + ":")
    value = _Value(sink, stream=text_only, lines=syntax.keyed.endswith("\n"))
    tag = syntax.valued.strip()
    if not text_only:
        yield from _json_ahead(tape, value.write)
    if not (yield from tape.past(tag, value.write)):
        raise Malformed
    value.end(_kinds(sink.schema_of(tool, key)))


def _json_ahead(tape: CharStream, out: Out) -> Reading[None]:
    """Copy a list or object up to its last bracket, because a closing tag inside its strings closes nothing."""
    yield from tape.spaces()
    depth, quoted, escaped = 0, False, False
    while (char := (yield from tape.peek())) and (depth or char in "[{"):
        out((yield from tape.take()))
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        else:
            quoted = char == '"'
            depth += (char in "[{") - (char in "]}")
            if not depth:
                return


class _Value:
    """One argument between tags: a string is streamed, any other value is written when it is complete."""

    def __init__(self, sink: CallEvents, *, stream: bool, lines: bool) -> None:
        self._sink = sink
        self._stream = stream
        self._lines = lines
        self._begun = False
        self._held = ""
        if stream:
            sink.write('"')

    def write(self, text: str) -> None:
        """Add a piece. One line break at each end belongs to the tags, so the last one is held back."""
        text = self._held + text
        if self._lines and not self._begun and text:
            text = text.removeprefix("\n")
            self._begun = True
        self._held = ""
        if not self._stream:
            self._held = text
        elif self._lines and text.endswith("\n"):
            self._held = "\n"
            text = text[:-1]
        if self._stream and text:
            self._sink.write(dumps(text)[1:-1])

    def end(self, kinds: tuple[str, ...]) -> None:
        """End the value."""
        if self._stream:
            self._sink.write('"')
            return
        text = self._held.strip()
        value: JSONValue = self._held.removesuffix("\n") if self._lines else self._held
        if not ("string" in kinds and text != "null"):
            with suppress(Malformed):
                value = loads(text)
        self._sink.write(dumps(value))


def _kinds(schema: JSONValue) -> tuple[str, ...]:
    """Return the JSON types that a schema names."""
    if not isinstance(schema, Mapping):
        return ()
    kind = schema.get("type")
    if isinstance(kind, str):
        return (kind,)
    options = schema.get("enum")
    if isinstance(kind, list | tuple):
        return tuple(str(item) for item in kind)
    if isinstance(options, list | tuple) and options and all(isinstance(item, str) for item in options):
        return ("string",)
    return ()


def _is_text(schema: JSONValue) -> bool:
    return _kinds(schema) == ("string",)
