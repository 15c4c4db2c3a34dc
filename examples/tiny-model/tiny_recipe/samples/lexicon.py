"""Every plain word of the phrases: what the model reads and writes as one token, and should be able to copy and spell."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tiny_recipe.phrases import asking, systems, told
from tiny_recipe.phrases.facts import FAMILIES
from tiny_recipe.phrases.mullama import MULLAMA
from tiny_recipe.phrases.phrasing import Phrasings
from tiny_recipe.phrases.stories import (
    ADJECTIVES,
    END,
    FINDING,
    OPENING,
    PLACES,
    RACE,
    STORM,
    THINGS,
)
from tiny_recipe.phrases.talk import I_DO_NOT_KNOW, IDENTITY, LISTS, SMALL_TALK, UNKNOWN
from tiny_recipe.phrases.tools import DOMAINS, MADE_UP_VERBS
from tiny_recipe.phrases.words import ANIMALS, CITIES, COLOUR_NAMES, NAMES, WORDS


@cache
def lexicon() -> tuple[str, ...]:
    """The words in small letters, sorted; the words of the tables that have held-out entries are left out."""
    words = {word.strip(".,:;!?'\"`()[]").lower() for text in texts() for word in text.split()}
    tables = {part.lower() for entry in (*NAMES, *CITIES, *WORDS) for part in entry.split()}
    return tuple(sorted(word for word in words - tables if word.isalpha() and word.isascii()))


def texts() -> Iterator[str]:
    """All phrases that a learner may see, and all answers."""
    for family in FAMILIES:
        yield from (part for pair in family.pairs for part in pair)
        yield from (*family.asked.learned, family.answer)
    for reply in (*LISTS, *IDENTITY, *MULLAMA, *SMALL_TALK):
        yield from (*reply.asked.learned, reply.answer)
    for domain in DOMAINS:
        yield from (*domain.requests.learned, domain.description)
    for module in (asking, systems, told):
        for value in vars(module).values():
            if isinstance(value, Phrasings):
                yield from value.learned
    for plot in (OPENING, FINDING, STORM, RACE, END, PLACES, ADJECTIVES, THINGS):
        yield from plot
    yield from (*UNKNOWN.learned, I_DO_NOT_KNOW, *MADE_UP_VERBS, *COLOUR_NAMES, *ANIMALS)
