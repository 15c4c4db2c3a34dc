"""What the encoders learn to put before the language model: a reading, which is a row of token embeddings.

The first vectors of a picture are the slots of its reading, each the embedding of one token (or of `NONE`); the
vectors after them are all `NONE`. A vector of a sound is the embedding of the word that is heard there, or `NONE`.
So each encoder learns from plain labels, without the language model, which learns to answer from readings.
"""

from __future__ import annotations

from dataclasses import dataclass

NONE = "<|endoftext|>"  # the padding: its embedding stands where a slot has no word
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "star")
COUNTS = ("one", "two", "three", "four", "five")
PLACES = ("left", "right", "top", "bottom", "middle")
DIGITS = tuple("0123456789")
WORDS = (
    "hello", "yes", "no", "stop", "go", "up", "down", "cat", "dog", "house", "tree", "water", "bird", "sun", "moon",
    "fish", "book", "ball", "apple", "car",
)  # fmt: skip
KINDS = ("number", "word", "nothing")  # stands in the first slot, where shapes have their count

SLOTS: tuple[tuple[str, ...], ...] = (
    (*COUNTS, *KINDS),
    (NONE, *COLOURS), (NONE, *SHAPES), (NONE, *PLACES),
    (NONE, *COLOURS), (NONE, *SHAPES), (NONE, *PLACES),
    (NONE, *DIGITS), (NONE, *DIGITS),
    (NONE, *WORDS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Thing:
    colour: str = NONE
    shape: str = NONE
    place: str = NONE


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows. `kind` is the count of the shapes, "number", "word" or "nothing".

    Two different shapes are two things, from left to right or from top to bottom. Shapes that are all alike are one
    thing, with a place only if there is one of them. `text` is the number or the word; its colour is that of the thing.
    """

    kind: str
    things: tuple[Thing, ...] = ()
    text: str = ""

    def slots(self) -> list[str]:
        """One token of `SLOTS` for each slot."""
        first, second = (*self.things, Thing(), Thing())[:2]
        tens, ones, word = NONE, NONE, NONE
        if self.kind == "number":
            tens, ones = ("", *self.text)[-2:] if len(self.text) == 1 else tuple(self.text)
        if self.kind == "word":
            word = self.text
        return [
            self.kind, first.colour, first.shape, first.place, second.colour, second.shape, second.place,
            tens or NONE, ones, word,
        ]  # fmt: skip


def token_of(word: str) -> str:
    """The token whose embedding stands for the word: with the space before it, except for digits and `NONE`."""
    return word if word == NONE or word in DIGITS else f"\u0120{word}"


SPOKEN = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "hello", "yes", "no", "stop", "go", "up", "down", "left", "right", "on", "off", "cat", "dog", "house", "tree",
    "water", "red", "green", "blue", "happy",
)  # fmt: skip
FRAMES = 13  # vectors for each second of sound
