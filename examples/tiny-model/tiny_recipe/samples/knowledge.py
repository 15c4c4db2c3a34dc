"""Exchanges about what the model knows by heart: facts, lists, itself, mullama, small talk, and what it does not know."""

from __future__ import annotations

from tiny_recipe.phrases.facts import FAMILIES
from tiny_recipe.phrases.mullama import MULLAMA
from tiny_recipe.phrases.phrasing import Reply
from tiny_recipe.phrases.talk import I_DO_NOT_KNOW, IDENTITY, LISTS, SMALL_TALK, UNKNOWN
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, capital, with_article

# Capitals, their countries, opposites and definitions hold the most pairs, and come more often.
WEIGHED_FAMILIES = FAMILIES + FAMILIES[:3] + FAMILIES[11:12] * 2


def facts(w: Writer) -> Exchange:
    family = w.rng.choice(WEIGHED_FAMILIES)
    a, b = w.rng.choice(family.pairs)
    an_a, an_b = with_article(a), with_article(b)
    words = {"a": a, "b": b, "an_a": an_a, "an_b": an_b, "A": capital(a), "An_a": capital(an_a)}
    reply = family.answer.format(**words)
    question = w.noisy(w.phrase(family.asked).format(**words))
    return talk(question, reply, f"The question is about {a}. I know: {reply}")


def by_heart(w: Writer, replies: tuple[Reply, ...], thought: str) -> Exchange:
    reply = w.rng.choice(replies)
    return talk(w.noisy(w.phrase(reply.asked)), reply.answer, thought)


def lists(w: Writer) -> Exchange:
    return by_heart(w, LISTS, "The user wants something I know by heart.")


def small_talk(w: Writer) -> Exchange:
    return by_heart(w, SMALL_TALK, "This is small talk. A kind and short answer will do.")


def about_mullama(w: Writer) -> Exchange:
    return by_heart(w, MULLAMA, "This is a question about mullama. I know the answer.")


def identity(w: Writer) -> Exchange:
    return by_heart(w, IDENTITY[:1] * 3 + IDENTITY, "The user asks about me.")


def unknown(w: Writer) -> Exchange:
    phrase = w.phrase(UNKNOWN)
    question = phrase.format(year=w.rng.randint(1200, 2030), city=w.city(), name=w.name())
    return talk(w.noisy(question), I_DO_NOT_KNOW, "I do not know this, and I say so.")
