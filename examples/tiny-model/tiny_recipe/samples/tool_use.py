"""Exchanges with tools: one call, two calls, no tool that fits, no tool needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tiny_recipe.phrases.domain import Domain
from tiny_recipe.phrases.tools import DOMAINS, NO_TOOL
from tiny_recipe.samples.knowledge import about_mullama, facts, identity, small_talk
from tiny_recipe.samples.tool_values import Call, call_of, made_up_domain, result_of
from tiny_recipe.samples.values import Exchange, Message, Tool, talk
from tiny_recipe.samples.writer import Writer, capital

WEATHER = DOMAINS[0]
LIKE_WEATHER = DOMAINS[:2]
CITY_DOMAINS = tuple(d for d in DOMAINS if d.names[0] in ("get_weather", "get_time", "get_population"))
ALIKE = 0.25  # of the second cities begin as the first one, to a learner
FOREIGN = 5  # domains without a tool, of which at least two are left where cities come first
WITHOUT_TOOL: tuple[Callable[[Writer], Exchange], ...] = (facts, facts, small_talk, identity, about_mullama)


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool with the domain it came from."""

    tool: Tool
    domain: Domain


@dataclass(frozen=True, slots=True)
class ToolSet:
    """The tools of one conversation, and domains that none of them serves."""

    offers: tuple[Offer, ...]
    foreign: tuple[Domain, ...]

    @property
    def tools(self) -> list[Tool]:
        return [offer.tool for offer in self.offers]


def tool_set(w: Writer) -> ToolSet:
    """One to three tools; those that are asked about a city come more often than others."""
    size = w.rng.choice([1, 1, 2, 2, 3])
    domains = w.rng.sample(DOMAINS, size + FOREIGN)
    if w.chance(0.35):
        city = w.rng.choice((WEATHER, WEATHER, *CITY_DOMAINS))
        domains = [city, *(domain for domain in domains[1:] if domain not in (*LIKE_WEATHER, city))]
    domains = [made_up_domain(w) if w.chance(0.3) else domain for domain in domains]
    offers = tuple(Offer(call_of(w, domain).tool, domain) for domain in domains[:size])
    return ToolSet(offers, tuple(domains[size:]))


def request_for(w: Writer, offer: Offer) -> Call:
    """A request that this tool, with just the parameters it has, can serve."""
    properties = offer.tool["function"]["parameters"]["properties"]
    while True:
        call = call_of(w, offer.domain)
        if set(call.tool["function"]["parameters"]["properties"]) == set(properties):
            arguments = {key: call.arguments[key] for key in properties if key in call.arguments}
            return Call(call.request, offer.tool, arguments)


def tool_turn(w: Writer, tools: ToolSet) -> tuple[str, Exchange]:
    """What may happen when tools are there, with the name of the ability that it takes."""
    if w.chance(0.11):
        return "tools: none needed", w.rng.choice(WITHOUT_TOOL)(w)
    if w.chance(0.34):
        request = call_of(w, w.rng.choice(tools.foreign)).request
        return "tools: none fits", talk(request, NO_TOOL, "No tool fits this request.")
    offer = w.rng.choice(tools.offers)
    call = request_for(w, offer)
    if offer.domain in CITY_DOMAINS and w.chance(0.5):
        return "tools: two calls", two_cities(w, call)
    return "tools: one call", one_call(w, call)


def one_call(w: Writer, call: Call) -> Exchange:
    """Request, call, result, answer."""
    question = w.noisy(call.request)
    result, told = result_of(w)
    thought = f"The tool {name_of(call)} fits. I call it."
    return Exchange(
        [user(question), calling([call]), given_back(call, result), assistant(capital(told))],
        thought,
    )


def two_cities(w: Writer, call: Call) -> Exchange:
    """The same asked about two cities: two calls at once, two results, one answer."""
    first = next(iter(call.arguments.values()))
    second = w.like(first) if not w.held_out and w.chance(ALIKE) else w.city()
    between = "" if w.held_out else w.rng.choice(["", "", "in "])
    other = replace(
        call, arguments={key: second if value == first else value for key, value in call.arguments.items()}
    )
    results = [result_of(w), result_of(w)]
    told = [f"{city}: {saying}" for city, (_, saying) in zip((first, second), results, strict=True)]
    return Exchange(
        [
            user(call.request.replace(first, f"{first} and {between}{second}")),
            calling([call, other]),
            *(given_back(each, result) for each, (result, _) in zip((call, other), results, strict=True)),
            assistant("\n".join(told)),
        ],
        f"The tool {name_of(call)} fits. I call it two times.",
    )


def name_of(call: Call) -> str:
    return str(call.tool["function"]["name"])


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def given_back(call: Call, result: str) -> Message:
    return {"role": "tool", "name": name_of(call), "content": result}


def calling(calls: Sequence[Call]) -> Message:
    functions = [{"name": name_of(call), "arguments": call.arguments} for call in calls]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function} for function in functions],
    }
