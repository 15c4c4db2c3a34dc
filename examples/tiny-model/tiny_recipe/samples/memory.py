"""Exchanges about what the user told earlier in the conversation."""

from __future__ import annotations

from tiny_recipe.phrases import told
from tiny_recipe.phrases.told import Told
from tiny_recipe.phrases.words import ANIMALS, COLOUR_NAMES
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer


def memory(w: Writer) -> tuple[Exchange, Exchange]:
    """Something told, and the question about it."""
    words = {
        "n": w.name(),
        "c": w.city(),
        "o": w.rng.choice(COLOUR_NAMES),
        "i": w.rng.randint(2, 999),
        "w": w.word(),
        "g": w.rng.randint(3, 99),
        "a": w.rng.choice(ANIMALS),
    }
    both = w.rng.choice((told.NAME, told.COLOUR))
    name_and_colour = Told(
        told.NAME_AND_COLOUR,
        "Nice to meet you, {n}! I will remember that your favourite colour is {o}.",
        both.asked,
        both.answer,
    )
    thing = w.rng.choice((*(told.NAME, told.COLOUR) * 4, *told.OTHERS, name_and_colour))
    said, question = w.phrase(thing.said).format(**words), w.phrase(thing.asked).format(**words)
    return (
        talk(w.noisy(said), thing.reply.format(**words), "The user tells me something. I keep it in mind."),
        talk(w.noisy(question), thing.answer.format(**words), "The user told me this before."),
    )


def not_told(w: Writer) -> Exchange:
    question, answer = w.rng.choice(told.NOT_TOLD)
    return talk(w.noisy(question), answer, "The user has not told me this.")
