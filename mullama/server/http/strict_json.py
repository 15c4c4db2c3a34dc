"""JSON on the wire: strict reading of untrusted bodies, with the byte of each fault, and compact writing. Pure.

`pydantic_core.from_json` refuses what is not JSON, NaN and infinity, unpaired surrogates, bytes that are not UTF-8,
integers of more than 4,300 digits, and more than 200 levels of nesting. It accepts duplicate keys and reads 1e999 as
infinity, so these two, long fractions and a smaller depth are checked here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import pydantic_core

from mullama.errors import Invalid, TooLarge
from mullama.names import JSONValue

_BOM = b"\xef\xbb\xbf"
_DIGITS = 4300  # of one number: the bound of Python and of pydantic_core for integers, here for fractions too
_SEARCHED = 256 * 1024  # bytes: Python finds the second of two equal keys in bodies up to this size

# Reading a body is one call into C, during which no other request is served. These bounds keep it below 0.2 s.
MOST_VALUES = 2**20
MOST_KEYS = 2**17
MOST_CONTAINERS = 2**17  # arrays and objects
_COUNTED = 64 * 1024  # bytes: a smaller body cannot reach the bounds
_ITEMS = 64  # of one array, written by one call into C
_OPENED = 8  # levels of a reply that are written part by part

# Possessive quantifiers do not backtrack, so each pattern takes linear time.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_strings = re.compile(_STRING, re.DOTALL)
_tokens = re.compile(rb"(?P<string>" + _STRING + rb")(?P<key>\s*+:)?|(?P<bracket>[\[\]{}])", re.DOTALL)
_constant = re.compile(rb"NaN|Infinity")
_surrogate = re.compile(rb"\\u[dD][89a-fA-F]")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")  # every digit becomes a zero,
_LONG = b"0" * (_DIGITS + 1)  # so that one search finds a long number
_position = re.compile(r"(?P<fault>.*) at line (?P<line>\d+) column (?P<column>\d+)")


def to_json(value: JSONValue) -> bytes:
    """Return compact UTF-8 JSON. NaN and infinity, which JSON does not have, become null."""
    return pydantic_core.to_json(value, inf_nan_mode="null")


def to_json_parts(value: JSONValue) -> bytes:
    """Return the same as `to_json` by many short calls into C, for a large value in a thread."""
    return b"".join(_parts(value, _OPENED))


def _parts(value: JSONValue, levels: int) -> Iterator[bytes]:
    if levels and isinstance(value, dict):
        mark = b"{"
        for key, item in value.items():
            yield b"%b%b:" % (mark, to_json(key))
            yield from _parts(item, levels - 1)
            mark = b","
        yield b"}" if value else b"{}"
    elif levels and isinstance(value, list | tuple):
        mark = b"["
        for start in range(0, len(value), _ITEMS):
            yield mark
            if len(value) > _ITEMS:
                yield to_json(list(value[start : start + _ITEMS]))[1:-1]
            else:
                yield b",".join(b"".join(_parts(item, levels - 1)) for item in value)
            mark = b","
        yield b"]" if value else b"[]"
    else:
        yield to_json(value)


def parse(raw: bytes, depth: int = 64) -> JSONValue:
    """Return the value, or raise `Invalid` that names the byte, or `TooLarge` for more than the counts above.

    `depth` bounds the nesting of arrays and objects.
    """
    body = raw.removeprefix(_BOM)
    if len(body) > _COUNTED:
        _check_counts(body)
    try:
        # Without a cache of strings, a body of many different keys is read in half the time.
        value = pydantic_core.from_json(body, allow_inf_nan=False, cache_strings=len(body) <= _COUNTED)
    except ValueError as error:
        raise _syntax_error(body, str(error)) from None
    keys = _count_keys(value, depth)
    if keys != body.count(b":") and keys != _outside_strings(body).count(b":"):
        raise _duplicate_key(body)
    if _LONG in body.translate(_ZEROS) and _LONG in _outside_strings(body).translate(_ZEROS):
        blank = _strings.sub(lambda string: b" " * len(string[0]), body)
        raise _refusal(f"a number of more than {_DIGITS} digits", blank.translate(_ZEROS).index(_LONG))
    return cast(JSONValue, value)


def _check_counts(body: bytes) -> None:
    """Raise `TooLarge` for a body whose reading would take too long."""
    if _exceeded(body) is None:
        return
    unescaped = _unescaped(body)  # the counts may be those of marks in text
    if unescaped.count(b'"') > 2 * (MOST_VALUES + MOST_KEYS):
        raise _too_many(MOST_VALUES, "values")
    if exceeded := _exceeded(_between_quotes(unescaped)):
        raise _too_many(*exceeded)


def _exceeded(text: bytes) -> tuple[int, str] | None:
    """Return the first bound that the marks in this text reach, None if they reach none."""
    if text.count(b",") >= MOST_VALUES:
        return MOST_VALUES, "values"
    if text.count(b":") > MOST_KEYS:
        return MOST_KEYS, "keys"
    if text.count(b"[") + text.count(b"{") > MOST_CONTAINERS:
        return MOST_CONTAINERS, "arrays and objects"
    return None


def _too_many(most: int, name: str) -> TooLarge:
    return TooLarge(f"the body holds more than {most} {name}", hint="send several requests, or text in place of tokens")


def _outside_strings(body: bytes) -> bytes:
    """Return valid JSON without its strings: a few passes in C, 50 times faster than a tokenizer."""
    return _between_quotes(_unescaped(body))


def _unescaped(body: bytes) -> bytes:
    return body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body


def _between_quotes(body: bytes) -> bytes:
    return b"".join(body.split(b'"')[::2])


def _count_keys(value: Any, depth: int) -> int:
    """Return the number of keys in all objects; raise for infinity, and for more than `depth` levels.

    Each round takes the items of one level, most of it in C.
    """
    keys = 0
    items: list[Any] = [value]
    for _ in range(depth + 1):
        kinds = set(map(type, items))
        if float in kinds and (math.inf in items or -math.inf in items):
            raise _refusal("a number that JSON does not have")
        if dict not in kinds and list not in kinds:
            return keys
        objects = [item for item in items if type(item) is dict]
        arrays = [item for item in items if type(item) is list]
        keys += sum(map(len, objects))
        items = [*chain.from_iterable(arrays), *chain.from_iterable(map(dict.values, objects))]
    raise Invalid(f"the body nests arrays and objects deeper than {depth}", hint="send a flatter body")


def _syntax_error(body: bytes, message: str) -> Invalid:
    """Return the error for a fault that the parser found, with the byte in place of line and column."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is {body[error.start]:#04x}"
        return Invalid(f"the body is not UTF-8: {found}", hint="send JSON in UTF-8")
    match = _position.fullmatch(message)
    if match is None:
        return _refusal(message)
    byte, fault = _byte(body, int(match["line"]), int(match["column"])), match["fault"]
    if fault.startswith("EOF"):
        return _refusal(fault, len(body))
    if fault.startswith("recursion"):
        return Invalid("the body nests arrays and objects too deep", hint="send a flatter body")
    if fault == "number out of range":
        return _refusal(f"a number of more than {_DIGITS} digits", len(body[:byte].rstrip(b"0123456789")))
    if _constant.match(body, byte):
        return _refusal("a number that JSON does not have", byte - (body[byte - 1 : byte] == b"-"))
    if "escape" in fault:
        # Two quotes end a string that the body leaves open, also after a backslash.
        start = next((string.start() for string in _strings.finditer(body + b'""') if string.end() > byte), byte)
        if _surrogate.search(body, start, byte):
            return _refusal("a string with half a surrogate pair", start)
    return _refusal(fault, byte)


def _byte(body: bytes, line: int, column: int) -> int:
    """Return the offset of a line and column, both counted from 1; column 0 is the line break before."""
    start = 0
    for _ in range(line - 1):
        start = body.index(b"\n", start) + 1
    return max(0, start + column - 1)


def _duplicate_key(body: bytes) -> Invalid:
    """Return the error for two equal keys in one object, with the byte of the second unless the body is large."""
    if len(body) > _SEARCHED:
        return _refusal("a key twice in one object")
    objects: list[set[str]] = []
    for token in _tokens.finditer(body):
        if token["bracket"]:
            if token["bracket"] in b"[{":
                objects.append(set())
            else:
                objects.pop()
        elif token["key"]:
            key = json.loads(token["string"])
            if key in objects[-1]:
                return _refusal(f"the key {key[:80]!r} twice", token.start())
            objects[-1].add(key)
    return _refusal("a key twice in one object")


def _refusal(fault: str, byte: int | None = None) -> Invalid:
    where = "" if byte is None else f" at byte {byte}"
    return Invalid(f"the body is not acceptable JSON: {fault}{where}", hint="send strict JSON")
