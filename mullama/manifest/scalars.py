"""The value of an unquoted YAML word: the core schema of YAML 1.2, without the forms that tools read differently.

Only `true` and `false` are booleans; only `null`, `~` and the empty value are null. Octal, hexadecimal, grouped and
base-60 numbers, dates and numbers with leading zeros are text, such as `0777`, `1:30` and `on`.
"""

from __future__ import annotations

import math
import re

from mullama.manifest.nodes import Plain

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)
_WORDS: dict[str, Plain] = {"": None, "~": None, "null": None, "true": True, "false": False}
_MOST_DIGITS = 18


def read_plain(text: str) -> Plain:
    """Return the value of an unquoted word; raise ValueError for a number that is out of range."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _WHOLE.fullmatch(text):
        if len(text.lstrip("+-")) > _MOST_DIGITS:
            raise ValueError("the number has too many digits and is out of range")
        return int(text)
    if _NOT_A_NUMBER.fullmatch(text):
        raise ValueError("infinity and not-a-number are not allowed")
    if len(text) <= 64 and _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("the number is out of range")
        return number
    return text
