"""Reads JSON from a stranger: bounded, exact, and with the byte where something is wrong. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, cast

from mullama.errors import Invalid
from mullama.names import JSONValue

# Possessive quantifiers throughout: no pattern here can go back, so each is linear in the text.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_HEX = "[0-9a-fA-F]"
_SOUND_STRING = (
    rf'"(?:[^"\\]++|\\u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}'
    rf'|\\u(?![dD][89a-fA-F]){_HEX}{{4}}|\\[^u])*+"'
)
_DIGITS = 4300  # Python's own bound for integers
_strings = re.compile(_STRING, re.DOTALL)
_lone_surrogate = re.compile(rf'(?:[^"]++|{_SOUND_STRING})*+(?=")', re.DOTALL)
_constant = re.compile(rf'(?:[^"NI-]++|{_STRING}|-(?!Infinity))*+(?=NaN|-?Infinity)', re.DOTALL)
_long_number = re.compile(rf'(?:[^"0-9]++|{_STRING}|[0-9]{{1,{_DIGITS}}}+(?![0-9]))*+(?=[0-9])', re.DOTALL)
_token = re.compile(rf"(?P<string>{_STRING})(?P<key>\s*+:)?|(?P<mark>[\[\]{{}}])", re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SEARCHED = 256 * 1024  # a longer text is not searched in Python for the place of a doubled key


class _Doubled(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


class _NotANumber(Exception):
    pass


def parse(raw: bytes, depth: int = 64) -> JSONValue:
    """The value, or `Invalid` that names the byte. `depth` bounds how arrays and objects may nest.

    Refused besides bad JSON: other encodings than UTF-8, a key twice in one object, NaN and infinity
    (also by size: 1e999), strings with half a surrogate pair, numbers of more than 4,300 digits.
    """
    text = _text(raw)
    _check_depth(text, depth)
    if "\\u" in text and (hit := _lone_surrogate.match(text)) and _is_surrogate(text, hit.end()):
        _refuse("a string with half a surrogate pair", text, hit.end())
    return _load(text)


def _text(raw: bytes) -> str:
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise Invalid(
            f"the body is not UTF-8: byte {error.start} is {raw[error.start]:#04x}",
            hint="send JSON in UTF-8",
        ) from error


def _check_depth(text: str, depth: int) -> None:
    """Counts before parsing, at the speed of C: takes innermost pairs away, one level a round."""
    if text.count("[") + text.count("{") <= depth:
        return
    rest = _strings.sub("", text).encode().translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(depth):
        if b"[" * (depth + 1) in rest:
            break
        fewer = rest.replace(b"[]", b"")
        if len(fewer) == len(rest):  # nothing left, or unbalanced, which the parser will say
            return
        rest = fewer
    if rest:
        raise Invalid(f"the body nests arrays and objects deeper than {depth}", hint="send a flatter body")


def _load(text: str) -> JSONValue:
    try:
        return cast(JSONValue, _decoder.decode(text))
    except json.JSONDecodeError as error:
        _refuse(error.msg[0].lower() + error.msg[1:], text, error.pos)
    except _Doubled as doubled:
        _refuse(f"the key {doubled.key[:80]!r} twice", text, _second(text, doubled.key))
    except ValueError:  # Python refuses integers of more than 4300 digits, `_float` its like
        hit = _long_number.match(text)
        _refuse(f"a number of more than {_DIGITS} digits", text, hit.end() if hit else None)
    except _NotANumber:
        hit = _constant.match(text)
        _refuse("a number that JSON does not have", text, hit.end() if hit else None)
    except RecursionError as error:  # only unbalanced brackets pass the count and get here
        raise Invalid("the body nests too deep and never closes") from error


def _refuse(what: str, text: str, position: int | None) -> NoReturn:
    where = "" if position is None else f" at byte {len(text[:position].encode())}"
    raise Invalid(f"the body is not acceptable JSON: {what}{where}", hint="send strict JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Doubled(key)
            seen.add(key)
    return value


def _constant_found(_: str) -> NoReturn:
    raise _NotANumber


def _float(text: str) -> float:
    if len(text) > _DIGITS:
        raise ValueError(text)
    value = float(text)
    if value - value != 0:  # infinity: the only value besides NaN that is not equal to itself here
        raise _NotANumber
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant_found, parse_float=_float)


def _is_surrogate(text: str, start: int) -> bool:
    """Whether the string that begins here is closed: an open one is for the parser to refuse."""
    string = _strings.match(text, start)
    return string is not None and re.search(r"\\u[dD][89a-fA-F]", string[0]) is not None


def _second(text: str, key: str) -> int | None:
    """Where the doubled key stands for the second time in its object; None in very long texts."""
    if len(text) > _SEARCHED:
        return None
    open_objects: list[set[str]] = []
    for token in _token.finditer(text):
        if token["mark"]:
            if token["mark"] in "[{":
                open_objects.append(set())
            elif open_objects:
                open_objects.pop()
        elif token["key"] and open_objects:
            name = json.loads(token["string"])
            if name == key and name in open_objects[-1]:
                return token.start()
            open_objects[-1].add(name)
    return None
