"""Reads JSON one character at a time and copies a value as it arrives, without outer white space."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping

from mullama.chat.reader.char_stream import CharStream, Malformed, Reading
from mullama.names import JSONValue

Out = Callable[[str], None]

MAX_DEPTH = 64
MAX_NUMBER = 320
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPES = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"
_SURROGATE = re.compile("[\ud800-\udfff]")


def copy_value(tape: CharStream, out: Out, depth: int = 0) -> Reading[None]:
    """Copy one value to `out`; raise `Malformed` at the first character that is not JSON."""
    if depth > MAX_DEPTH:
        raise Malformed
    yield from tape.spaces()
    match (yield from tape.peek()):
        case "{":
            yield from _copy_object(tape, out, depth)
        case "[":
            yield from _copy_list(tape, out, depth)
        case '"':
            yield from copy_string(tape, out)
        case _:
            yield from _copy_scalar(tape, out)


def copy_object(tape: CharStream, begin: Callable[[], None], out: Out) -> Reading[None]:
    """Copy an object to `out`, after `begin` at its first character."""
    yield from tape.spaces()
    if (yield from tape.peek()) != "{":
        raise Malformed
    begin()
    yield from copy_value(tape, out)


def copy_string(tape: CharStream, out: Out) -> Reading[None]:
    """Copy a string literal. A bare line break or tab inside it is escaped, because models write those."""
    yield from tape.expect('"')
    out('"')
    while char := (yield from tape.take()):
        if char == '"':
            out('"')
            return
        if char == "\\":
            yield from _copy_escape(tape, out)
        else:
            out(char if char >= " " else json.dumps(char)[1:-1])
    raise Malformed


def read_string(tape: CharStream) -> Reading[str]:
    """Return the value of a string literal."""
    parts: list[str] = []
    yield from copy_string(tape, parts.append)
    return str(loads("".join(parts)))


def loads(text: str) -> JSONValue:
    """Return a JSON value that every encoder can write again: no infinity, no lone surrogate."""
    try:
        value: JSONValue = json.loads(text, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed from error
    return _encodable(value) if "\\u" in text or _SURROGATE.search(text) else value


def object_of(text: str) -> Mapping[str, JSONValue] | None:
    """Return the JSON object that the text is, None for any other text and for one nested too deeply."""
    if _deep(text):
        return None
    try:
        value = loads(text)
    except Malformed:
        return None
    return value if isinstance(value, Mapping) else None


def _deep(text: str) -> bool:
    """Return True if brackets outside strings are nested deeper than `MAX_DEPTH`."""
    depth = deepest = 0
    for char in _STRING.sub("", text):
        depth += (char in "[{") - (char in "]}")
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH


def complete_members(text: str) -> Mapping[str, JSONValue]:
    """Return the complete members of an object whose text may be cut anywhere; none for text of another form."""
    closers: list[str] = []
    quoted = escaped = False
    end, closing = 0, ""  # of the last complete member, and the brackets that close the text there
    for place, char in enumerate(text):
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
            end, closing = place + 1, "".join(reversed(closers))
        elif char == "," and closers:
            end, closing = place, "".join(reversed(closers))
        elif char in "}]" and closers:
            closers.pop()
            end, closing = place + 1, "".join(reversed(closers))
    return object_of(text[:end] + closing) or {}


def dumps(value: JSONValue) -> str:
    """Return compact JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _refuse(text: str) -> float:
    raise ValueError(text)


def _encodable(value: JSONValue) -> JSONValue:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_SURROGATE.sub("\ufffd", key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def _copy_escape(tape: CharStream, out: Out) -> Reading[None]:
    char = yield from tape.take()
    if char == "u":
        digits = ""
        while len(digits) < 4:
            digit = yield from tape.take()
            if not digit or digit not in _HEX:
                raise Malformed
            digits += digit
        out("\\u" + digits)
    elif char and char in _ESCAPES:
        out("\\" + char)
    else:
        raise Malformed


def _copy_object(tape: CharStream, out: Out, depth: int) -> Reading[None]:
    yield from tape.expect("{")
    out("{")
    yield from tape.spaces()
    if (yield from tape.peek()) != "}":
        while True:
            yield from tape.spaces()
            yield from copy_string(tape, out)
            yield from tape.expect(":")
            out(":")
            yield from copy_value(tape, out, depth + 1)
            if not (yield from _another(tape, out, "}")):
                return
    yield from tape.take()
    out("}")


def _copy_list(tape: CharStream, out: Out, depth: int) -> Reading[None]:
    yield from tape.expect("[")
    out("[")
    yield from tape.spaces()
    if (yield from tape.peek()) != "]":
        while True:
            yield from copy_value(tape, out, depth + 1)
            if not (yield from _another(tape, out, "]")):
                return
    yield from tape.take()
    out("]")


def _another(tape: CharStream, out: Out, close: str) -> Reading[bool]:
    yield from tape.spaces()
    char = yield from tape.peek()
    if not char or char not in "," + close:
        raise Malformed
    yield from tape.take()
    out(char)
    return char == ","


def _copy_scalar(tape: CharStream, out: Out) -> Reading[None]:
    text = yield from tape.until(" \t\r\n,:]}{[\"'<|`", MAX_NUMBER)
    if text not in ("true", "false", "null"):
        if not _NUMBER.fullmatch(text):
            raise Malformed
        loads(text)
    out(text)
