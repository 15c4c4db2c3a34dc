"""Draws words, phrasings and choices for samples, either from what is learned or from what is held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar
from zlib import crc32

from tiny_recipe.phrases.asking import POLITE_ENDS, POLITE_OPENINGS, SENTENCES
from tiny_recipe.phrases.phrasing import Phrasings
from tiny_recipe.phrases.words import CITIES, NAMES, WORDS
from tiny_recipe.samples.lexicon import lexicon
from tiny_recipe.samples.reword import bare, reworded

T = TypeVar("T")
ONSETS = "b br c d dr f g gr h j k kl l m n p pl r s st t tr v w z ch sh".split()
RARE_ONSETS = ("", "", "", "", "qu", "qu", "y", "y", "x", "th", "gl")  # a learner's only
VOWELS = "a e i o u a e i o ee oo ai".split()
CODAS = ("", "", "", "n", "r", "l", "s", "m", "k", "t")


class Writer:
    """A seeded source of text. A writer of held-out text uses the held-out phrasings, the fifth of each table of
    words that no learner sees, and made-up words of its own."""

    def __init__(self, seed: int, *, held_out: bool) -> None:
        self.rng = random.Random(seed)
        self.held_out = held_out

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def weighted(self, choices: Sequence[tuple[T, float]]) -> T:
        return self.rng.choices([choice for choice, _ in choices], [weight for _, weight in choices])[0]

    def phrase(self, phrasings: Phrasings) -> str:
        """One way to say it; a learner's way is sometimes reworded, but never into a held-out one."""
        if self.held_out:
            return self.rng.choice(phrasings.held_out)
        phrasing = self.rng.choice(phrasings.learned)
        if self.chance(0.2):
            other = reworded(self.rng, phrasing)
            if bare(other) not in map(bare, phrasings.held_out):
                return other
        return phrasing

    def mine(self, word: str) -> bool:
        """Is this word on this writer's side of the line between learned and held out?"""
        return (crc32(word.encode()) % 5 == 0) == self.held_out

    def entry(self, table: Sequence[str]) -> str:
        return self.rng.choice([word for word in table if self.mine(word)])

    def pseudo(self, syllables: int = 2) -> str:
        """A word that does not exist, such as 'brelko'. Of a learner's, every fifth has a syllable twice or nearly."""
        while True:
            draw = self.rng.choice
            onsets = ONSETS if self.held_out else (*ONSETS, *RARE_ONSETS)
            parts = [[draw(onsets), draw(VOWELS), draw(CODAS)] for _ in range(syllables)]
            if not self.held_out and syllables > 1 and self.chance(0.2):
                again = parts[self.rng.randrange(syllables - 1)].copy()
                changed = self.rng.randrange(3)
                again[changed] = draw((onsets, VOWELS, CODAS)[changed])
                parts[-1] = again
            word = "".join("".join(part) for part in parts)
            if self.mine(word):
                return word

    def like(self, word: str) -> str:
        """A word that shares its beginning, its end or a piece with another one, or is the same in other letters:
        easily mixed up while copying."""
        while True:
            size = self.rng.randint(1, 4)
            start = self.rng.randrange(len(word))
            other = self.any_of(
                lambda: word[:size] + self.pseudo(1),
                lambda: self.pseudo(1) + word[-size:],
                lambda: self.pseudo(1) + word[start : start + size] + self.pseudo(1),
                lambda: self.any_of(word.upper, word.lower, word.capitalize),
            )
            if other != word and self.mine(other):
                return other

    def name(self) -> str:
        return self.entry(NAMES) if self.chance(0.6) else self.pseudo().capitalize()

    def city(self) -> str:
        if self.chance(0.65):
            return self.entry(CITIES)
        if not self.held_out and self.chance(0.3):
            return f"{self.pseudo().capitalize()} {self.pseudo(self.rng.randint(1, 2)).capitalize()}"
        return self.pseudo().capitalize() + self.rng.choice(("", "", "ville", "burg", "ton", " City"))

    def word(self) -> str:
        """A word of the table, any known word (to a learner only), or one that does not exist."""
        if self.chance(0.5):
            return self.pseudo(self.rng.randint(1, 3))
        if not self.held_out and self.chance(0.4):
            return self.rng.choice(lexicon())
        return self.entry(WORDS)

    def text(self, low: int = 2, high: int = 5) -> str:
        """A few words in a row that make no sense together, or a sentence that does."""
        if self.chance(0.3):
            sentence = self.rng.choice(SENTENCES)
            return sentence.format(n=self.rng.randint(2, 99), c=self.city(), p=self.name(), w=self.word())
        words = [self.word() for _ in range(self.rng.randint(low, high))]
        if not self.held_out and self.chance(0.5):
            self.muddled(words)
        return " ".join(words)

    def muddled(self, words: list[str]) -> None:
        """One of the words becomes another one's double or its like: what copying stumbles over."""
        if len(words) > 1:
            one, other = self.rng.sample(range(len(words)), 2)
            words[other] = words[one] if self.chance(0.4) else self.like(words[one])

    def any_of(self, *draws: Callable[[], T]) -> T:
        return self.rng.choice(draws)()

    def noisy(self, question: str) -> str:
        """The question as a hasty or a polite user would type it."""
        if self.held_out or self.chance(0.6):
            return question
        if self.chance(0.3):
            stranger = self.pseudo().capitalize() + self.rng.choice((", ", ": ", ". ", " "))
            question = self.rng.choice((*POLITE_OPENINGS, stranger, stranger)) + question
        if self.chance(0.3):
            question = question.rstrip("?.!")
        if self.chance(0.25):
            question = question[:1].lower() + question[1:]
        if self.chance(0.15):
            question += self.rng.choice(POLITE_ENDS)
        return question

    def quoted(self, text: str) -> str:
        return self.rng.choice(("{}", "{}", '"{}"', "'{}'", '"{}"')).replace("{}", text)


def with_article(noun: str) -> str:
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def joined(parts: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join(", ".join(parts).rsplit(", ", 1))
