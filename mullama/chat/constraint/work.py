"""Bounds the work of a grammar before it is compiled: its size once every repetition is written out."""

from __future__ import annotations

import re
from typing import Final

MAX_WORK: Final = 64 * 1024
"""Most characters of a regular expression, or of one rule of a grammar, with all repetitions written out.

llguidance builds an expression of this size before it chooses the first token; this many take about 0.1 s.
"""

_PART = re.compile(
    r"(?P<escape>\\(?:[pPxu]\{[^}]*\}|.))|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<open>\((?:\?(?:P?<\w+>|[a-zA-Z-]*:))?)"
    r"|(?P<close>\))|(?P<or>\|)|(?P<count>\{(?P<low>\d*)(?:,(?P<high>\d*))?\})|(?P<mark>[*+?])|(?P<char>.)",
    re.DOTALL,
)


def pattern_work(pattern: str) -> int:
    """Return the size of a regular expression with all repetitions written out."""
    groups: list[list[int]] = [[]]
    for part in _PART.finditer(pattern):
        match part.lastgroup:
            case "open":
                groups.append([])
            case "close" if len(groups) > 1:
                inner = sum(groups.pop())
                groups[-1].append(inner)
            case "count" if groups[-1]:
                groups[-1][-1] *= repeats(part["low"], part["high"])
            case "or" | "mark" | "close" | "count":
                pass
            case _:
                groups[-1].append(1)
    return sum(map(sum, groups))


def repeats(low: str | None, high: str | None) -> int:
    """Return how often a repetition between two bounds is written out, at least once."""
    return max(int(low or 0), int(high or 0), 1)
