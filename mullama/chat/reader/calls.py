"""One parser for each call syntax. It reads from the end of the opening mark to the end of the last call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.char_stream import CharStream, Malformed, Reading
from mullama.chat.reader.json_text import copy_object, copy_value, dumps, loads, read_string
from mullama.chat.reader.python_calls import read_braces, read_python
from mullama.chat.reader.xml_calls import read_tagged
from mullama.chat.syntax import (
    BraceCalls,
    CallSyntax,
    ChannelCalls,
    JsonCalls,
    NamedCalls,
    PythonCalls,
    TaggedCalls,
)

_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "input", "args")
_OTHER_KEYS = ("id", "type", "index", "tool_call_id", "call_id")


def read_bare(tape: CharStream, sink: CallEvents, syntax: CallSyntax, *, fenced: bool) -> Reading[None]:
    """Read calls that begin an answer without a mark, except a code fence. Only the client's tools count."""
    form = syntax if isinstance(syntax, JsonCalls) else JsonCalls(open="")
    yield from read_json(tape, sink, form, known_only=True)
    if fenced:
        yield from tape.choose("```")


def read_calls(tape: CharStream, sink: CallEvents, syntax: CallSyntax, opening: str) -> Reading[None]:
    """Read all calls after `opening`: one of the openings of `syntax`, or "" for a call without a mark."""
    match syntax:
        case JsonCalls():
            yield from read_json(tape, sink, syntax, known_only=not opening)
        case NamedCalls():
            yield from _read_named(tape, sink, syntax)
        case TaggedCalls():
            yield from read_tagged(tape, sink, syntax, opening)
        case BraceCalls():
            yield from read_braces(tape, sink, syntax)
        case PythonCalls():
            yield from read_python(tape, sink, syntax)
        case ChannelCalls():
            raise Malformed  # has a reader of its own
        case _:
            assert_never(syntax)


def read_json(tape: CharStream, sink: CallEvents, syntax: JsonCalls, *, known_only: bool) -> Reading[None]:
    """Read objects or a list of objects.

    known_only: without a mark, only the client's tools count as calls.
    """
    reader = _ObjectReader(tape, sink, syntax, known_only=known_only)
    yield from tape.choose("```json")
    yield from tape.spaces()
    listed = (yield from tape.peek()) == "["
    if listed:
        yield from tape.take()
    while True:
        yield from reader.read()
        yield from tape.spaces()
        char = yield from tape.peek()
        if char and char in ",;" and (listed or char == ";"):
            yield from tape.take()
            yield from tape.spaces()
            char = yield from tape.peek()
        if char != "{":
            break
    if listed:
        yield from tape.expect("]")
    yield from _close(tape, syntax.close)


def _close(tape: CharStream, mark: str) -> Reading[None]:
    """Read the closing mark. A missing mark is accepted, because the calls are complete."""
    if mark:
        yield from tape.choose(mark)


class _ObjectReader:
    """Reads {"name": …, "arguments": …}. Arguments stream once the name is known."""

    def __init__(self, tape: CharStream, sink: CallEvents, syntax: JsonCalls, *, known_only: bool) -> None:
        self._tape = tape
        self._sink = sink
        self._syntax = syntax
        self._known_only = known_only
        self._name = ""
        self._held = ""
        self._ended = False

    def read(self) -> Reading[None]:
        """Read one call."""
        self._name, self._held, self._ended = "", "", False
        yield from self._fields()
        if not self._ended:
            self._sink.start(self._name)
            self._sink.write(self._held or "{}")
            self._sink.finish()

    def _fields(self) -> Reading[None]:
        tape = self._tape
        yield from tape.expect("{")
        while True:
            yield from tape.spaces()
            key = yield from read_string(tape)
            yield from tape.expect(":")
            yield from tape.spaces()
            yield from self._field(key)
            yield from tape.spaces()
            char = yield from tape.peek()
            if char == ",":
                yield from tape.take()
            elif char == "}":
                yield from tape.take()
                return
            elif self._ended:
                return  # a missing brace after complete arguments is forgiven
            else:
                raise Malformed

    def _field(self, key: str) -> Reading[None]:
        syntax, tape = self._syntax, self._tape
        if syntax.name_is_key and self._name == "":
            self._name = key
            yield from self._arguments()
        elif key == "function" and (yield from tape.peek()) == "{":
            yield from self._fields()
        elif key in (syntax.name_key, *_NAME_KEYS):
            self._name = yield from read_string(tape)
            if self._known_only and self._name not in self._sink.tools:
                raise Malformed
        elif key in (syntax.arguments_key, *_ARGUMENT_KEYS):
            yield from self._arguments()
        elif key in _OTHER_KEYS or not self._known_only:
            yield from copy_value(tape, lambda _: None)
        else:
            raise Malformed

    def _arguments(self) -> Reading[None]:
        if self._ended:
            raise Malformed
        if self._name and (yield from self._tape.peek()) == "{":
            self._sink.start(self._name)
            yield from copy_value(self._tape, self._sink.write)
            self._sink.finish()
            self._ended = True
            return
        parts: list[str] = []
        yield from copy_value(self._tape, parts.append)
        self._held = _as_object("".join(parts))


def _as_object(text: str) -> str:
    """Return the JSON text of an object for arguments that are null, or an object inside a string."""
    value = loads(text)
    if isinstance(value, str):
        value = loads(value) if value.strip() else {}
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise Malformed
    return dumps(value)


def _read_named(tape: CharStream, sink: CallEvents, syntax: NamedCalls) -> Reading[None]:
    yield from tape.spaces()
    if syntax.lists and (yield from tape.peek()) in ("[", "{"):
        older = JsonCalls(open=syntax.open, one_list=True)
        yield from read_json(tape, sink, older, known_only=False)
        return
    marks = [mark for mark in (syntax.begin, syntax.close) if mark]
    yield from tape.expect(syntax.begin)
    while True:
        yield from _one_named(tape, sink, syntax)
        again = (yield from tape.choose(*marks)) == 0
        if not (again and syntax.begin):
            return


def _one_named(tape: CharStream, sink: CallEvents, syntax: NamedCalls) -> Reading[None]:
    stops = (syntax.middle.strip()[:1], syntax.id_mark[:1], "{", "\n")
    name = (yield from tape.until("".join(stops))).strip()
    if syntax.ordinal:
        name = name.partition(":")[0]
    if syntax.id_mark and (yield from tape.choose(syntax.id_mark, syntax.middle)) == 0:
        yield from tape.until(syntax.middle[:1])
        yield from tape.expect(syntax.middle)
    elif not syntax.id_mark and (yield from tape.peek()) != "{":
        yield from tape.expect(syntax.middle)
    yield from copy_object(tape, lambda: sink.start(name), sink.write)
    sink.finish()
    if syntax.end:
        yield from tape.choose(syntax.end)
