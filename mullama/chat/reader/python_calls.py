"""Reads calls that are parsed only when they are complete: Python notation, and Gemma's."""

from __future__ import annotations

import ast
import json

from mullama.chat.reader.call_events import CallEvents
from mullama.chat.reader.char_stream import CharStream, Malformed, Reading
from mullama.chat.reader.json_text import loads
from mullama.chat.syntax import BraceCalls, PythonCalls
from mullama.names import JSONValue

MAX_CALL = 65_536  # characters


def _collect(tape: CharStream, close: str) -> Reading[str]:
    """Return the text up to the closing mark, or to the end."""
    parts: list[str] = []
    size = 0

    def add(text: str) -> None:
        nonlocal size
        size += len(text)
        if size > MAX_CALL:
            raise Malformed
        parts.append(text)

    yield from tape.past(close, add)
    return "".join(parts).strip()


def read_python(tape: CharStream, sink: CallEvents, syntax: PythonCalls) -> Reading[None]:
    """Read calls such as [name(key="value")]."""
    text = yield from _collect(tape, syntax.close)
    try:
        tree = ast.parse(text, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        calls = [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed from error
    if not calls:
        raise Malformed
    for name, arguments in calls:
        sink.whole(name, arguments)


def _python_call(node: ast.expr) -> tuple[str, JSONValue]:
    if not isinstance(node, ast.Call):
        raise Malformed
    name = ast.unparse(node.func)
    if name == "print" and len(node.args) == 1:
        return _python_call(node.args[0])
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise Malformed
    arguments = {str(keyword.arg): _python_value(keyword.value) for keyword in node.keywords}
    return name, loads(json.dumps(arguments))


def _python_value(node: ast.expr) -> object:
    """Return the value of a literal; JSON's true, false and null are accepted too."""
    match node:
        case ast.Name(id="true"):
            return True
        case ast.Name(id="false"):
            return False
        case ast.Name(id="null"):
            return None
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_python_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {str(_python_value(k)): _python_value(v) for k, v in zip(keys, values, strict=True) if k}
        case _:
            value: object = ast.literal_eval(node)
            if not isinstance(value, str | int | float | None):
                raise Malformed
            return value


def read_braces(tape: CharStream, sink: CallEvents, syntax: BraceCalls) -> Reading[None]:
    """Read a call such as call:name{key:value}."""
    text = yield from _collect(tape, syntax.close)
    name, brace, rest = text.removeprefix("call:").partition("{")
    if not text.startswith("call:") or not brace:
        raise Malformed
    parser = _Braces("{" + rest, syntax.quote)
    value = parser.value(0)
    if parser.rest.strip():
        raise Malformed
    sink.whole(name.strip(), value)


class _Braces:
    """Parses Gemma's notation of values: bare keys, strings between marks, otherwise JSON."""

    def __init__(self, text: str, quote: str) -> None:
        self.rest = text
        self._quote = quote

    def value(self, depth: int) -> JSONValue:
        """Return the next value."""
        if depth > 32:
            raise Malformed
        self.rest = self.rest.lstrip()
        if self.rest.startswith(self._quote):
            return self._string()
        if self.rest.startswith("{"):
            return self._object(depth)
        if self.rest.startswith("["):
            return self._list(depth)
        end = next((i for i, char in enumerate(self.rest) if char in ",}]"), len(self.rest))
        word, self.rest = self.rest[:end], self.rest[end:]
        return loads(word.strip())

    def _string(self) -> str:
        text, mark, self.rest = self.rest[len(self._quote) :].partition(self._quote)
        if not mark:
            raise Malformed
        return text

    def _object(self, depth: int) -> JSONValue:
        made: dict[str, JSONValue] = {}
        self._take("{")
        while not self._took("}"):
            if made:
                self._take(",")
            if self.rest.lstrip().startswith(self._quote):
                self.rest = self.rest.lstrip()
                key = self._string()
                self._take(":")
            else:
                key, colon, self.rest = self.rest.partition(":")
                if not colon:
                    raise Malformed
            made[key.strip()] = self.value(depth + 1)
        return made

    def _list(self, depth: int) -> JSONValue:
        made: list[JSONValue] = []
        self._take("[")
        while not self._took("]"):
            if made:
                self._take(",")
            made.append(self.value(depth + 1))
        return made

    def _took(self, mark: str) -> bool:
        self.rest = self.rest.lstrip()
        if not self.rest:
            raise Malformed
        if self.rest.startswith(mark):
            self.rest = self.rest[len(mark) :]
            return True
        return False

    def _take(self, mark: str) -> None:
        if not self._took(mark):
            raise Malformed
