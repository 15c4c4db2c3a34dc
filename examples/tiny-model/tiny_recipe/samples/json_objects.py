"""Exchanges in which the answer is one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tiny_recipe.phrases.asking import JSON_OF_PERSON, JSON_OPENINGS
from tiny_recipe.phrases.pairs import CAPITALS
from tiny_recipe.phrases.words import ANIMALS, COLOUR_NAMES
from tiny_recipe.samples.values import Exchange, talk
from tiny_recipe.samples.writer import Writer, joined

# The values that the model chooses when the user gives none.
PRESET: dict[str, Any] = {
    "name": "Anna", "age": 30, "city": "Paris", "colour": "blue", "id": 1,
    "active": True, "country": "France", "animal": "dog", "title": "hello", "price": 10,
}  # fmt: skip
AGES = (", {}.", " who is {}.", ", age {}.", ", who is {} years old.")


def drawn_values(w: Writer) -> dict[str, Any]:
    """One value for each key that the exchanges know."""
    return {
        "name": w.name(),
        "age": w.rng.randint(1, 99),
        "city": w.city(),
        "colour": w.rng.choice(COLOUR_NAMES),
        "id": w.rng.randint(1, 9999),
        "active": w.chance(0.5),
        "country": w.rng.choice(CAPITALS)[0],
        "animal": w.rng.choice(ANIMALS),
        "title": w.word(),
        "price": w.rng.randint(1, 500),
    }


def json_object(w: Writer) -> Exchange:
    value = drawn_values(w)
    if not w.held_out and w.chance(0.2):
        value["title"] = w.like(value["name"])
    opening = w.rng.choice(JSON_OPENINGS.held_out if w.held_out else JSON_OPENINGS.learned)
    kind = w.rng.randint(0, 5)
    if kind == 0:
        return named_and_aged(w, opening, value)
    if kind == 1:
        answer = {"name": value["name"], "age": PRESET["age"]}
        return answered(
            f"{opening} with name and age for {value['name']}.", answer, "No age is given, so I take 30."
        )
    if kind == 2:
        question = w.phrase(JSON_OF_PERSON).format(n=value["name"], a=value["age"], c=value["city"])
        answer = {key: value[key] for key in ("name", "age", "city")}
        return answered(question, answer, "The user wants JSON with three keys.")
    keys = w.rng.sample(list(value), w.rng.randint(1, 4))
    if kind == 3:
        return unspecified(w, opening, keys)
    return specified(opening, {key: value[key] for key in keys})


def answered(question: str, answer: dict[str, Any], thought: str) -> Exchange:
    return talk(question, json.dumps(answer, ensure_ascii=False), thought)


def named_and_aged(w: Writer, opening: str, value: dict[str, Any]) -> Exchange:
    question = f"{opening} with name and age for {value['name']}" + w.rng.choice(AGES).format(value["age"])
    answer = {"name": value["name"], "age": value["age"]}
    return answered(question, answer, "The user wants JSON with two keys.")


def unspecified(w: Writer, opening: str, keys: Sequence[str]) -> Exchange:
    question = f"{opening} with {w.rng.choice(('the keys ', 'the fields ', ''))}{joined(keys)}."
    return answered(question, {key: PRESET[key] for key in keys}, "No values are given, so I choose them.")


def specified(opening: str, chosen: dict[str, Any]) -> Exchange:
    said = [
        f"{key} {json.dumps(value) if isinstance(value, bool) else value}" for key, value in chosen.items()
    ]
    return answered(f"{opening} with {joined(said)}.", chosen, "I copy the values into JSON.")
