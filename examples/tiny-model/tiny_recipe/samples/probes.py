"""Held-out questions for every ability, with the answers wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from tiny_recipe.samples.code import fill_in
from tiny_recipe.samples.exercises import arithmetic, count, repeat, say_times, spell
from tiny_recipe.samples.json_objects import json_object
from tiny_recipe.samples.knowledge import (
    about_mullama,
    facts,
    identity,
    lists,
    small_talk,
    unknown,
)
from tiny_recipe.samples.memory import memory
from tiny_recipe.samples.rules import KINDS, Rule, system_rule
from tiny_recipe.samples.stories import story
from tiny_recipe.samples.tool_use import tool_set, tool_turn
from tiny_recipe.samples.values import Exchange, Probe
from tiny_recipe.samples.writer import Writer

PROBE_SEED, MOST_PROBES = 1, 100  # per ability; training keeps clear of this many
ONE_TURN: dict[str, Callable[[Writer], Exchange]] = {
    "facts": facts,
    "arithmetic": arithmetic,
    "lists": lists,
    "who it is": identity,
    "mullama": about_mullama,
    "small talk": small_talk,
    "does not know": unknown,
    "count": count,
    "repeat": repeat,
    "spell": spell,
    "say N times": say_times,
    "JSON": json_object,
    "story": story,
}


def probes(per_ability: int) -> Iterator[Probe]:
    """The first `per_ability` probes of every ability: always the same, at most MOST_PROBES."""
    for make in (one_turn, thinking, rules, remembered, with_tools, holes):
        yield from make(Writer(PROBE_SEED, held_out=True), per_ability)


@cache
def probe_questions() -> frozenset[str]:
    """The questions of all probes, in the form in which `same_question` compares them."""
    return frozenset(same_question(probe.question) for probe in probes(MOST_PROBES))


def same_question(text: str) -> str:
    """The text without case, outer marks and runs of space: equal for questions that are the same to a reader."""
    return " ".join(text.lower().split()).strip(" .?!")


def one_turn(w: Writer, count_: int) -> Iterator[Probe]:
    for ability, write in ONE_TURN.items():
        for _ in range(count_):
            exchange = write(w)
            yield Probe(ability=ability, messages=exchange.messages[:1], want=exchange.answer)


def thinking(w: Writer, count_: int) -> Iterator[Probe]:
    for _ in range(count_):
        exchange = w.rng.choice([facts, arithmetic, identity, about_mullama])(w)
        yield Probe(ability="thinking", messages=exchange.messages[:1], want=exchange.answer, thinking=True)


def rules(w: Writer, count_: int) -> Iterator[Probe]:
    for kind in KINDS:
        for _ in range(count_):
            rule = rule_of(w, kind)
            exchange = rule.write(w)
            system = {"role": "system", "content": rule.system}
            yield Probe(
                ability=f"system: {kind}", messages=[system, exchange.messages[0]], want=exchange.answer
            )


def rule_of(w: Writer, kind: str) -> Rule:
    while (rule := system_rule(w)).kind != kind:
        pass
    return rule


def remembered(w: Writer, count_: int) -> Iterator[Probe]:
    for _ in range(count_):
        told, question = memory(w)
        between = [message for _ in range(w.rng.choice([0, 1, 2])) for message in facts(w).messages]
        messages = told.messages + between + question.messages[:1]
        yield Probe(ability="memory", messages=messages, want=question.answer)


def with_tools(w: Writer, count_: int) -> Iterator[Probe]:
    abilities = ("tools: one call", "tools: two calls", "tools: none fits", "tools: none needed")
    wanted = dict.fromkeys(abilities, count_)
    while any(wanted.values()):
        offered = tool_set(w)
        ability, exchange = tool_turn(w, offered)
        if not wanted[ability]:
            continue
        wanted[ability] -= 1
        asked, tools = exchange.messages[:1], offered.tools
        yield Probe(ability=ability, messages=asked, want=exchange.answer, tools=tools)
        if ability == "tools: one call":
            whole, last = exchange.messages[:-1], exchange.messages[-1]
            yield Probe(ability="tools: answer", messages=whole, want=last, tools=tools)
            yield Probe(
                ability="tools: thinking", messages=asked, want=exchange.answer, tools=tools, thinking=True
            )


def holes(w: Writer, count_: int) -> Iterator[Probe]:
    for _ in range(count_):
        prompt, middle = fill_in(w)
        want = {"role": "assistant", "content": middle}
        yield Probe(ability="fill in the middle", messages=[], want=want, prompt=prompt)
