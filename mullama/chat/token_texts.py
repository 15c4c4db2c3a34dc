"""Finds the texts of control tokens inside texts, and breaks them, so that no tokenizer reads them as tokens.

A prompt is one text, in which the template writes control tokens and messages contribute contents. A text of a control
token inside a content is broken by a private-use character behind its first character: the joint. The tokenizer
reads control tokens in what is left, and removes the joint from the text between them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby

from mullama.errors import Invalid

JOINTS = range(0xE000, 0xE0F0)
"""Code points of the characters that can be a joint."""
_SHORT = 512  # characters
_MOST_SEEN = 4096


class TokenTexts:
    """A set of texts, each of at least two characters; case is ignored, because templates may change it.

    The patterns are compiled at their first use: most texts hold none of the first two characters.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = sorted({_lower(text) for text in texts if len(text) > 1})
        self._seen: dict[str, bool] = {}  # short texts: those of tools come with every request

    @cached_property
    def _begins(self) -> re.Pattern[str]:
        """Matches the first two characters of each text."""
        return re.compile(_any_of(sorted({text[:2] for text in self._texts})), re.IGNORECASE)

    @cached_property
    def _first(self) -> re.Pattern[str]:
        """Matches the first character of each occurrence, also where occurrences overlap."""
        return re.compile(f"(?={_any_of(self._texts)}).", re.IGNORECASE | re.DOTALL)

    @cached_property
    def _reversed(self) -> list[str]:
        return sorted(text[::-1] for text in self._texts)

    def occurs_in(self, text: str) -> bool:
        """Return True if `broken` changes this text."""
        if not self._texts or len(text) < 2:
            return False
        if len(text) > _SHORT:
            return self._found_in(text)
        found = self._seen.get(text)
        if found is None:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            found = self._seen[text] = self._found_in(text)
        return found

    def _found_in(self, text: str) -> bool:
        if self._begins.search(text) and self._first.search(text):
            return True
        return bool(self._begun(text) or self._ended(text))

    def broken(self, text: str, joint: str) -> str:
        """Return the text with the joint inside each occurrence.

        Two characters or more at the edge that a neighbouring text could complete to an occurrence are broken, too.
        """
        return joint.join(self.split(text)) if self.occurs_in(text) else text

    def split(self, text: str) -> list[str]:
        """Return the parts between which `broken` puts the joint."""
        cuts = {match.end() for match in self._first.finditer(text)}
        if begun := self._begun(text):
            cuts.add(len(text) - begun + 1)
        if self._ended(text):
            cuts.add(1)
        return list(_pieces(text, sorted(cuts)))

    def _begun(self, text: str) -> int:
        """Return the length of the longest beginning of an occurrence at the end of `text`, at least 2, else 0."""
        return _longest(self._texts, _lower(text[-self._reach :]))

    def _ended(self, text: str) -> int:
        """Return the length of the longest end of an occurrence at the beginning of `text`, at least 2, else 0."""
        return _longest(self._reversed, _lower(text[: self._reach])[::-1])

    @cached_property
    def _reach(self) -> int:
        return max(map(len, self._texts))


def is_turn_mark(text: str) -> bool:
    """Return True for a text that only a template should write, whatever type the vocabulary gives its token.

    By does_token_look_special of llama.cpp's converter; some older files give such a token the type of ordinary words.
    """
    return len(text) > 4 and text[:2] + text[-2:] in ("<||>", "<｜｜>")


def choose_joint(contents: Sequence[str]) -> str:
    """Return a character that none of these texts holds. Raises `Invalid` for texts that hold all of `JOINTS`."""
    used = set().union(*contents)
    for code in JOINTS:
        if chr(code) not in used:
            return chr(code)
    raise Invalid(
        f"the messages hold every private-use character from U+{JOINTS[0]:04X} to U+{JOINTS[-1]:04X}",
        hint="one of them must be free, because the messages also hold a medium or the text of a control token",
        field="messages",
    )


def _lower(text: str) -> str:
    """Return the text in lower case if that has the same length."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text


def _pieces(text: str, cuts: Sequence[int]) -> Iterator[str]:
    start = 0
    for cut in cuts:
        yield text[start:cut]
        start = cut
    yield text[start:]


def _longest(texts: Sequence[str], tail: str) -> int:
    """Return the length of the longest end of `tail`, at least 2, with which one of the sorted texts begins, else 0."""
    for start in range(len(tail) - 1):
        part = tail[start:]
        place = bisect_left(texts, part)
        if place < len(texts) and texts[place].startswith(part):
            return len(part)
    return 0


def _any_of(texts: Sequence[str]) -> str:
    """Return a pattern for the sorted texts that reads each character once; the shortest of two alike matches."""
    start = 0
    first, last = texts[0], texts[-1]
    while start < len(first) and first[start] == last[start]:
        start += 1
    if start == len(first):
        return re.escape(first)
    branches = [_any_of([t[start:] for t in group]) for _, group in groupby(texts, key=lambda t: t[start])]
    return f"{re.escape(first[:start])}(?:{'|'.join(branches)})"
