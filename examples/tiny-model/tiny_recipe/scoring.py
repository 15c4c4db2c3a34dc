"""Whether an answer to a probe passes."""

from __future__ import annotations

import json
import re
from operator import itemgetter
from typing import Any

from tiny_recipe.samples.values import Probe

CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)
HERO = re.compile(r"an? \w+ (\w+) called (\w+)\.")


def passes(probe: Probe, text: str) -> bool:
    """The whole answer is the wanted one: JSON and tool calls by value, stories by what was asked for."""
    if probe.thinking:
        thought, found, text = text.partition("\n</think>\n\n")
        if not found or not thought.startswith("<think>\n"):
            return False
    if "tool_calls" in probe.want:
        return calls_in(text) == list(map(itemgetter("function"), probe.want["tool_calls"]))
    wanted = str(probe.want["content"])
    if probe.ability == "story":
        return story_fits(probe.question, wanted, text)
    if probe.ability == "JSON":
        return bool(parsed(text) == json.loads(wanted))
    return text.rstrip() == wanted.rstrip()


def parsed(text: str) -> Any:
    """The JSON value, or the text itself if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def calls_in(text: str) -> list[Any]:
    """The tool calls, if the text is nothing else; one whose JSON is broken stays text."""
    left_over = CALL.sub("", text).strip()
    return [parsed(call) for call in CALL.findall(text)] + ([left_over] if left_over else [])


def names_called(text: str) -> list[str]:
    """The names of the tools that the text calls, as far as its JSON can be read."""
    return [
        str(call["name"])
        for call in map(parsed, CALL.findall(text))
        if isinstance(call, dict) and "name" in call
    ]


def story_fits(question: str, wanted: str, text: str) -> bool:
    """Is the story about the animal that was asked for, under its name if one was given, and of some length?"""
    hero, told = HERO.search(wanted), HERO.search(text)
    if hero is None or told is None or not 300 < len(text) < 1500:
        return False
    animal, name = hero.groups()
    return told[1] == animal and (name not in question or (told[2] == name and text.count(name) > 3))
