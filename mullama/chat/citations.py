"""Citations in an answer: numbers in brackets that name the pages of a search. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mullama.chat.types import AnswerPart, Citation, ToolEnded, ToolRun
from mullama.struct import Struct

_MARK = re.compile(r"\[(\d{1,4}(?:\s{0,2},\s{0,2}\d{1,4}){0,20})\]")


class Cited(Struct, frozen=True, kw_only=True):
    """One place of a text that names a page."""

    start: int
    """Index of its first character."""
    end: int
    """Index after its last character."""
    page: Citation


def cited(text: str, pages: Mapping[int, Citation]) -> tuple[Cited, ...]:
    """Return the places of a text that name pages by their numbers, such as `[2]` and `[1, 3]`."""
    if not pages:
        return ()
    return tuple(
        Cited(start=mark.start(), end=mark.end(), page=pages[number])
        for mark in _MARK.finditer(text)
        for number in map(int, mark[1].split(","))
        if number in pages
    )


def numbered(results: Iterable[ToolEnded]) -> dict[int, Citation]:
    """Return the pages of searches by the numbers that the model reads."""
    return {number: page for one in results for number, page in enumerate(one.citations, one.first)}


def pages_of(parts: Iterable[AnswerPart]) -> dict[int, Citation]:
    """Return the pages of all searches of an answer, by their numbers."""
    return numbered(part.ended for part in parts if isinstance(part, ToolRun) and part.ended is not None)
