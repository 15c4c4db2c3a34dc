"""Places of values in JSON text, by JSON pointer. Pure."""

from __future__ import annotations

import json
import re

_decode = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")


def place_at(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both from 1."""
    begin = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - begin + 1


def offset_of(text: str, pointer: str) -> int:
    """Return the offset of the value at a JSON pointer, such as `/properties/name` or `#/items`; "" is the whole.

    text: valid JSON without a key twice in one object. A pointer that leads nowhere has the offset of the last value
    on its way.
    """
    at = _after_space(text, 0)
    for step in pointer.lstrip("#").split("/")[1:]:
        inner = _member(text, at, step.replace("~1", "/").replace("~0", "~"))
        if inner is None:
            return at
        at = inner
    return at


def _member(text: str, at: int, step: str) -> int | None:
    """Return the offset of a member of the object or the array at an offset, None if it has no such member."""
    if text[at] not in "{[":
        return None
    is_object, index = text[at] == "{", 0
    at = _after_space(text, at + 1)
    while text[at] not in "}]":
        name = str(index)
        if is_object:
            name, end = _decode(text, at)
            at = _after_space(text, _after_space(text, end) + 1)  # beyond the colon
        if name == step:
            return at
        _, end = _decode(text, at)
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
        index += 1
    return None


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
