"""What tools look like, what they are given and what they give back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiny_recipe.phrases.asking import USE_TOOL
from tiny_recipe.phrases.domain import Domain
from tiny_recipe.phrases.phrasing import Phrasings
from tiny_recipe.phrases.tools import (
    CONDITIONS,
    MADE_UP_PARAMETERS,
    MADE_UP_VERBS,
    PROBLEMS,
    PROPERTIES_TOLD,
    RESULTS,
    STATES,
)
from tiny_recipe.samples.values import Tool
from tiny_recipe.samples.writer import Writer, capital, joined, with_article

ALIKE = 0.2  # of the texts that come beside another argument hold a word like it, to a learner


@dataclass(frozen=True, slots=True)
class Call:
    """A request in words, and the tool call that serves it."""

    request: str
    tool: Tool
    arguments: dict[str, Any]


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a parameter of this kind."""
    match kind.split(" ", 1):
        case ["int", _]:
            return {"type": "integer"}
        case ["bool", _]:
            return {"type": "boolean"}
        case ["enum", values]:
            return {"type": "string", "enum": values.split("|")}
        case _:
            return {"type": "string"}


def value_of(w: Writer, kind: str) -> tuple[Any, str]:
    """An argument and how the user says it."""
    match kind.split(" ", 1):
        case ["int", limits]:
            number = w.rng.randint(*map(int, limits.split()))
            return number, str(number)
        case ["bool", words]:
            true = w.chance(0.5)
            return true, words.split("|")[not true]
        case ["enum", values]:
            choice = w.rng.choice(values.split("|"))
            return choice, choice
        case ["text"]:
            text = w.text()
            return text, w.rng.choice([text, f'"{text}"'])
        case ["path"]:
            path = path_of(w)
            return path, path
        case ["symbol"]:
            symbol = w.pseudo().upper()[:4]
            return symbol, symbol
        case _:
            said: str = getattr(w, kind)()
            return said, said


def resembling(w: Writer, text: str, other: str) -> str:
    """The text with a word like another argument: practice in keeping the two apart."""
    words = text.split()
    words[w.rng.randrange(len(words))] = w.like(other)
    return " ".join(words)


def path_of(w: Writer) -> str:
    folder = w.rng.choice(["", "/tmp/", "docs/", "./", "/home/" + w.name().lower() + "/"])
    return str(folder) + w.word() + w.rng.choice([".txt", ".md", ".py", ".json", ".yaml"])


def arranged(value: Any) -> Any:
    """The same value with sorted keys, as Jinja's own tojson filter writes it."""
    if isinstance(value, dict):
        return {key: arranged(value[key]) for key in sorted(value)}
    return [arranged(each) for each in value] if isinstance(value, list) else value


def tool_schema(
    w: Writer, name: str, description: str, parameters: Mapping[str, tuple[str, str, bool]]
) -> Tool:
    """A function's JSON signature; `parameters` maps a name to its kind, description and whether it is required."""
    terse = w.chance(0.4)
    properties = {
        key: schema(kind) | ({} if terse else {"description": text})
        for key, (kind, text, _) in parameters.items()
    }
    signature: dict[str, Any] = {"type": "object", "properties": properties}
    if w.chance(0.85):
        signature["required"] = [key for key, (_, _, required) in parameters.items() if required]
    if w.chance(0.1):
        signature["additionalProperties"] = False
    function: dict[str, Any] = {"name": name, "description": description, "parameters": signature}
    if w.chance(0.05):
        function["strict"] = True
    tool = {"type": "function", "function": function}
    return arranged(tool) if w.chance(0.4) else tool


def call_of(w: Writer, domain: Domain) -> Call:
    """A tool of this domain and a request that it can serve."""
    keys: dict[str, str] = {}
    said: dict[str, str] = {}
    parameters: dict[str, tuple[str, str, bool]] = {}
    arguments: dict[str, Any] = {}
    phrasing = w.phrase(domain.requests)
    for mark, spec in domain.parameters.items():
        choices, kind, text = spec.split("; ")
        slot = mark.rstrip("?")
        keys[slot] = w.rng.choice(choices.split("|"))
        asked = "{" + slot + "}" in phrasing
        if mark.endswith("?") and not asked and w.chance(0.5):
            continue
        parameters[keys[slot]] = (kind, text, not mark.endswith("?"))
        argument, said[slot] = value_of(w, kind)
        if kind == "text" and not w.held_out and len(said) > 1 and w.chance(ALIKE):
            argument = said[slot] = resembling(w, argument, said[next(iter(said))])
        if asked:
            arguments[keys[slot]] = argument
    tool = tool_schema(w, w.rng.choice(domain.names), domain.description, parameters)
    order = tool["function"]["parameters"]["properties"]
    return Call(phrasing.format(**said), tool, {key: arguments[key] for key in order if key in arguments})


def made_up_domain(w: Writer) -> Domain:
    """A tool nobody has heard of, asked for by what it does or by its name."""
    verb, noun = w.rng.choice([w.entry(MADE_UP_VERBS), w.pseudo(1)]), w.word()
    longer = f"{verb}_{noun}_{w.rng.choice(['now', 'tool', 'v2', 'all'])}"
    name = w.rng.choice([f"{verb}_{noun}", f"{noun}_{verb}", longer])
    chosen = w.rng.sample(MADE_UP_PARAMETERS, w.rng.randint(1, 3))
    words = {
        "v": verb,
        "V": capital(verb),
        "n": noun,
        "an": with_article(noun),
        "d": joined([f"{key} {{{key}}}" for key, _ in chosen]),
        "t": name,
    }
    return Domain(
        (name,),
        f"{capital(verb)} {with_article(noun)}",
        {key: f"{key}; {kind}; The {key} of the {noun}" for key, kind in chosen},
        Phrasings(
            tuple(request.format(**words) for request in USE_TOOL.learned),
            tuple(request.format(**words) for request in USE_TOOL.held_out),
        ),
    )


def result_of(w: Writer) -> tuple[str, str]:
    """What a tool gives back, and how the model tells it."""
    if w.chance(0.1):
        problem = w.text() if w.chance(0.2) else w.rng.choice(PROBLEMS)
        return json.dumps({"error": problem}), f"the tool failed: {problem}."
    if w.chance(0.4):
        result = w.rng.choice(RESULTS)
        text = result.format(n=w.rng.randint(0, 999), c=w.city(), t=w.text(), p=w.name())
        return text, f"the tool says: {text}"
    keys = ["temperature", "condition"]
    if w.chance(0.7):
        keys = w.rng.sample(PROPERTIES_TOLD, w.rng.randint(1, 3))
    values = {key: told_value(w, key) for key in keys}
    told = " and ".join(f"the {key.replace('_', ' ')} is {value}" for key, value in values.items())
    return json.dumps(values), told + "."


def told_value(w: Writer, key: str) -> str | int:
    """A value that a tool may give back under this key."""
    match key:
        case "temperature":
            return w.rng.randint(-10, 40)
        case "condition":
            return w.rng.choice(CONDITIONS)
        case "status":
            return w.rng.choice(STATES)
        case "price":
            return w.rng.randint(1, 900)
        case "name":
            return w.name()
        case "city":
            return w.city()
        case "time":
            return f"{w.rng.randint(0, 23):02}:{w.rng.randint(0, 59):02}"
        case "title":
            return w.word()
        case "free_seats":
            return w.rng.randint(0, 99)
        case _:
            return w.rng.randint(1, 9999)
