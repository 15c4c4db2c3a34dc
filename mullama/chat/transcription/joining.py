"""Joins the texts of consecutive windows of a sound without lost or doubled words."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_WORDS_OF_A_SECOND = 6
"""More than people speak; of scripts without spaces, characters are counted four times as many."""
_UNCERTAIN = 2
"""Words beside the cut that both windows may have misheard, each in part."""
# Scripts without spaces between words: each character counts as a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_BARE = re.compile(r"[\W_]+")


class TranscriptJoiner:
    """Takes the text of each window and gives the text that continues the transcript.

    The end of a window that was cut in speech is held back until the next one shows the words there.
    """

    def __init__(self) -> None:
        self._held = ""  # the end of the last window that was cut
        self._begun = False
        self._last = ""  # last character given

    def add(self, text: str, *, overlap: float = 0.0, cut: float = 0.0) -> str:
        """Return the text to append for the next window.

        overlap: seconds at its beginning that the window before has too. cut: seconds at its end that the next one
        will have too, 0 for a window that ends with a pause.
        """
        held, self._held = self._held, ""
        text = joined(held, text.strip(), overlap) if held else text.strip()
        if not cut:
            return self.give(text)
        words = list(_WORD.finditer(text))
        keep = max(0, len(words) - _span(words, cut))
        at = words[keep].start() if keep < len(words) else len(text)
        self._held = text[at:]
        return self.give(text[:at].rstrip())

    def end(self) -> str:
        """Return the text that is held back at the end of the sound."""
        held, self._held = self._held, ""
        return self.give(held)

    def give(self, text: str) -> str:
        """Return a further text with the space before it."""
        if not text:
            return ""
        space = " " if self._begun and needs_space(self._last, text[0]) else ""
        self.note(text)
        return space + text

    def note(self, text: str) -> None:
        """Note a text that was appended without this joiner."""
        self._begun, self._last = True, text[-1]


def needs_space(before: str, after: str) -> bool:
    """Return whether a space separates a text that ends with a character from one that begins with another."""
    return not (before.isspace() or after.isspace() or re.match(f"[{_CJK}\u3000-\u303f]", before)
                or re.match(f"[{_CJK}\u3000-\u303f]", after))  # fmt: skip


def joined(before: str, after: str, overlap: float) -> str:
    """Return two texts as one, of which the end of the first and the beginning of the second say the same.

    overlap: seconds of sound that both heard. The longest run of words that both have there joins them: of the words
    beside it, which one window heard in part, the other one's are taken. Texts without such a run are put together.
    """
    old, new = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    if not old or not new:
        return before or after
    tail, head = old[-_span(old, overlap) :], new[: _span(new, overlap)]
    a, b = [_bare(word[0]) for word in tail], [_bare(word[0]) for word in head]
    run = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    near = len(a) - run.a - run.size <= _UNCERTAIN and run.b <= _UNCERTAIN
    if run.size and any(a[run.a : run.a + run.size]) and (near or run.size > _UNCERTAIN):
        # The last common word is the second text's: the first one may have a full stop there.
        return before[: tail[run.a + run.size - 1].start()] + after[head[run.b + run.size - 1].start() :]
    if a[-1] and b[0] and b[0] != a[-1]:
        if b[0].startswith(a[-1]):
            before = before[: tail[-1].start()]  # its last word is the beginning of one that the second text has whole
        elif a[-1].endswith(b[0]):
            after = after[head[0].end() :]
    before, after = before.rstrip(), after.lstrip()
    if not before or not after:
        return before or after
    return before + (" " if needs_space(before[-1], after[0]) else "") + after


def _span(words: list[re.Match[str]], seconds: float) -> int:
    """Return how many of these words may have been spoken in the seconds, at least one."""
    characters = sum(bool(re.match(f"[{_CJK}]", word[0])) for word in words)
    factor = 2 if characters * 2 > len(words) else 1
    return max(1, round(seconds * _WORDS_OF_A_SECOND * factor))


def _bare(word: str) -> str:
    return _BARE.sub("", word).casefold()
