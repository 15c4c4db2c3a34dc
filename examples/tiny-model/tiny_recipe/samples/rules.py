"""Conversations in which the system prompt sets a rule for every answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiny_recipe.phrases import systems
from tiny_recipe.samples.exercises import arithmetic
from tiny_recipe.samples.knowledge import (
    about_mullama,
    facts,
    identity,
    lists,
    small_talk,
)
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, capital

KINDS = ("name", "upper", "lower", "start", "end", "only", "pirate")
WEIGHED_KINDS = (
    "name", "name", "upper", "upper", "upper", "lower", "lower", "start", "start", "end", "end", "end", "only", "only",
    "pirate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of one kind: the system prompt, and what writes exchanges that follow it."""

    kind: str
    system: str
    write: Callable[[Writer], Exchange]


def system_rule(w: Writer) -> Rule:
    kind = w.rng.choice(WEIGHED_KINDS)
    word = w.any_of(w.word, w.name, w.pseudo)
    match kind:
        case "name":
            return named(w)
        case "upper":
            return Rule(kind, w.phrase(systems.UPPER_SYSTEMS), changed(str.upper))
        case "lower":
            return Rule(kind, w.phrase(systems.LOWER_SYSTEMS), changed(str.lower))
        case "pirate":
            return Rule(kind, w.phrase(systems.PIRATE_SYSTEMS), changed(lambda answer: f"Arr! {answer}"))
        case "only":
            system = w.phrase(systems.ONLY_SYSTEMS).format(x=w.quoted(word))
            return Rule(kind, system, changed(lambda _: word))
        case _:
            return framed(w, kind, word)


def plain_exchange(w: Writer) -> Exchange:
    write = w.rng.choice([facts, facts, facts, small_talk, identity, arithmetic, lists, about_mullama])
    return write(w)


def changed(change: Callable[[str], str]) -> Callable[[Writer], Exchange]:
    """What writes exchanges whose answers are changed."""

    def write(w: Writer) -> Exchange:
        exchange = plain_exchange(w)
        return talk(exchange.question, change(exchange.reply), exchange.thought)

    return write


def named(w: Writer) -> Rule:
    """A name for the assistant."""
    name = w.name()

    def write(w: Writer) -> Exchange:
        if w.chance(0.5):
            question = w.noisy(w.phrase(systems.NAME_QUESTIONS))
            return talk(question, f"My name is {name}.", "The system prompt gives me a name.")
        return w.rng.choice([facts, small_talk, arithmetic])(w)

    return Rule("name", w.phrase(systems.NAME_SYSTEMS).format(x=name), write)


def framed(w: Writer, kind: str, word: str) -> Rule:
    """Words to say at the start or at the end of every answer."""
    if w.chance(0.4) and not w.held_out:
        said = w.rng.choice(systems.EXCLAMATIONS)
    else:
        said = w.rng.choice([word, capital(word) + "!", f"[{word}]"])
    shown = w.quoted(said)
    if shown == said and said[-1] not in "!.:":
        shown += "."
    phrasings = systems.START_SYSTEMS if kind == "start" else systems.END_SYSTEMS
    system = w.phrase(phrasings).format(x=shown)
    if kind == "start":
        return Rule(kind, system, changed(lambda answer: f"{said} {answer}"))
    return Rule(kind, system, changed(lambda answer: f"{answer} {said}"))
