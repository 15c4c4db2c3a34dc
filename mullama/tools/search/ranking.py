"""Ranks passages of web pages by a question: by the vectors of a model, or by its words. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mullama.struct import Struct

PASSAGE: Final = 600
"""Characters of a passage, about."""
_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
"""k1 and b of BM25: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), section 3.4."""
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f]")
"""Characters of scripts that put no space between words."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")


class Passage(Struct, frozen=True, kw_only=True):
    """A part of the text of one source."""

    source: int
    """Index of the source."""
    order: int
    """Position in the source, from 0."""
    text: str


def passages_of(text: str, source: int, size: int = PASSAGE) -> tuple[Passage, ...]:
    """Return the text in passages of about `size` characters: whole paragraphs, and sentences of long ones."""
    found: list[str] = []
    room = 0
    for piece in _pieces(text, size):
        if found and len(piece) + 1 <= room:
            found[-1] += f"\n{piece}"
            room -= len(piece) + 1
        else:
            found.append(piece)
            room = size - len(piece)
    return tuple(Passage(source=source, order=i, text=one) for i, one in enumerate(found))


def _pieces(text: str, size: int) -> Iterator[str]:
    """Yield the paragraphs; of one that is longer than `size`, its sentences, cut where one is longer."""
    for line in text.splitlines():
        paragraph = " ".join(line.split())
        if len(paragraph) <= size:
            if paragraph:
                yield paragraph
            continue
        for sentence in _SENTENCE.split(paragraph):
            yield from (sentence[start : start + size] for start in range(0, len(sentence), size))


def words_of(text: str) -> list[str]:
    """Return the words in lower case; of scripts without spaces between words, each pair of characters."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if len(word) > 1 and _UNSPACED.search(word):
            found += (word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


def word_scores(question: str, texts: Sequence[str]) -> tuple[float, ...]:
    """Return the BM25 score of each text for the words of the question; 0 for a text with none of them."""
    wanted = set(words_of(question))
    counts = [Counter(words_of(text)) for text in texts]
    lengths = [sum(one.values()) for one in counts]
    mean = sum(lengths) / max(1, len(lengths)) or 1.0
    spread = Counter(word for one in counts for word in wanted & one.keys())
    rarity = {word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in spread.items()}

    def score(one: Counter[str], length: int) -> float:
        norm = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length / mean)
        return sum(
            weight * one[word] * (_SATURATION + 1) / (one[word] + norm) for word, weight in rarity.items() if one[word]
        )

    return tuple(map(score, counts, lengths))


def vector_scores(question: Sequence[float], vectors: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the cosine of each vector with that of the question; 0 for a vector without a direction."""
    length = math.hypot(*question)

    def cosine(vector: Sequence[float]) -> float:
        scale = length * math.hypot(*vector)
        return sum(map(float.__mul__, question, vector)) / scale if scale else 0.0

    return tuple(map(cosine, vectors))


def best(passages: Sequence[Passage], scores: Sequence[float], *, room: int, each: int) -> tuple[Passage, ...]:
    """Return the passages with the highest scores, in the order of their sources and positions.

    room: characters of all of them together. each: most passages of one source.
    The best passage of a source is preferred to the second of another one with a higher score, so that every source
    with text has a passage as long as there is room.
    """
    ranked = sorted(zip(passages, scores, strict=True), key=lambda pair: (-pair[1], pair[0].source, pair[0].order))
    taken: Counter[int] = Counter()
    chosen: list[Passage] = []
    first = [one for one, _ in ranked if not taken[one.source] and not taken.update((one.source,))]
    taken.clear()
    for passage in (*first, *(one for one, _ in ranked if one not in first)):
        if taken[passage.source] < each and len(passage.text) <= room:
            taken[passage.source] += 1
            room -= len(passage.text)
            chosen.append(passage)
    return tuple(sorted(chosen, key=lambda one: (one.source, one.order)))
