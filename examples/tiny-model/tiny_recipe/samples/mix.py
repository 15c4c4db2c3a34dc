"""The mix that the model learns from: how often which ability comes, and how conversations are put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tiny_recipe.phrases.stories import PLACES
from tiny_recipe.phrases.systems import NEUTRAL_SYSTEMS
from tiny_recipe.phrases.words import ANIMALS
from tiny_recipe.samples.code import code, fill_in
from tiny_recipe.samples.exercises import arithmetic, change_case, count, repeat, say_times, spell
from tiny_recipe.samples.json_objects import json_object
from tiny_recipe.samples.knowledge import (
    about_mullama,
    facts,
    identity,
    lists,
    small_talk,
    unknown,
)
from tiny_recipe.samples.memory import memory, not_told
from tiny_recipe.samples.probes import probe_questions, same_question
from tiny_recipe.samples.rules import system_rule
from tiny_recipe.samples.stories import story, story_text
from tiny_recipe.samples.tool_use import tool_set, tool_turn
from tiny_recipe.samples.values import Exchange, Message, Sample, Tool
from tiny_recipe.samples.writer import Writer

Turns = Callable[[Writer], list[Exchange]]
SIMPLE: tuple[tuple[Callable[[Writer], Exchange], float], ...] = (
    (facts, 15),
    (about_mullama, 12),
    (identity, 14),
    (small_talk, 4),
    (lists, 2),
    (arithmetic, 6),
    (count, 6),
    (repeat, 40),
    (spell, 7),
    (say_times, 11),
    (change_case, 10),
    (json_object, 22),
    (unknown, 2),
    (story, 4),
)
KINDS = (("tools", 54), ("rule", 24), ("memory", 3), ("plain", 19))
LENGTHS = ((128, 0.5), (256, 0.36), (512, 0.12), (1024, 0.02))
LENGTHS_WITH_TOOLS = ((256, 0.5), (512, 0.48), (1024, 0.02))
DOCUMENTS, THINKING = 0.17, 0.2


def samples(seed: int, make_writer: type[Writer] = Writer) -> Iterator[Sample]:
    """Training samples without end; none holds the question of a probe."""
    w = make_writer(seed, held_out=False)
    probed = probe_questions()
    while True:
        sample = document(w) if w.chance(DOCUMENTS) else conversation(w)
        if probed.isdisjoint(map(same_question, questions(sample))):
            yield sample


def questions(sample: Sample) -> list[str]:
    """What users say in the sample; of a document with a hole, all but what fills it."""
    if sample.text is not None:
        before, hole, _ = sample.text.partition("<|fim_middle|>")
        return [before + hole]
    return [message["content"] for message in sample.messages if message["role"] == "user"]


def simple(w: Writer) -> Exchange:
    return w.weighted(SIMPLE)(w)


def document(w: Writer) -> Sample:
    """Plain text: a story, sentences of facts, a function, or a function with a hole."""
    kind = w.weighted((("story", 0.5), ("facts", 2), ("code", 1), ("hole", 8)))
    match kind:
        case "story":
            return Sample(text=story_text(w, w.rng.choice(ANIMALS), w.name(), w.rng.choice(PLACES)))
        case "facts":
            writers = [w.rng.choice([facts, facts, facts, about_mullama]) for _ in range(8)]
            return Sample(text=" ".join(write(w).reply for write in writers), length=128)
        case "code":
            return Sample(text=code(w), length=128)
        case _:
            return Sample(text="".join(fill_in(w)), length=128)


def conversation(w: Writer) -> Sample:
    """A chat that fills a row: with tools, a rule in the system prompt, something to remember, or none of these."""
    kind = w.weighted(KINDS)
    length = w.weighted(LENGTHS_WITH_TOOLS if kind == "tools" else LENGTHS)
    thinking = w.chance(THINKING)
    messages, tools, turns = opened(w, kind)
    room = length * (0.45 if thinking else 1.0) - size_of(messages)
    if tools:
        room -= len(json.dumps(tools)) / 4 + 60
    opening = len(messages)
    while (len(messages) == opening and not thinking) or (room > 0 and not (thinking and w.chance(0.4))):
        for exchange in turns(w):
            messages += exchange.messages
            room -= size_of(exchange.messages)
    if not thinking:
        return Sample(messages=messages, tools=tools, length=length)
    last = turns(w)
    for exchange in last[:-1]:
        messages += exchange.messages
    messages += last[-1].messages[:2]
    return Sample(messages=messages, tools=tools, thought=last[-1].thought, length=length)


def opened(w: Writer, kind: str) -> tuple[list[Message], list[Tool], Turns]:
    """The system prompt and the tools of a conversation, and what writes its turns."""
    match kind:
        case "tools":
            offered = tool_set(w)

            def with_tools(w: Writer) -> list[Exchange]:
                return [tool_turn(w, offered)[1] if w.chance(0.9) else simple(w)]

            return neutral(w), offered.tools, with_tools
        case "rule":
            rule = system_rule(w)
            system = f"{w.rng.choice(NEUTRAL_SYSTEMS)} {rule.system}" if w.chance(0.2) else rule.system
            return [{"role": "system", "content": system}], [], lambda w: [rule.write(w)]
        case "memory":
            untold = not_told(w).messages if w.chance(0.15) else []
            return neutral(w) + untold, [], remembering
        case _:
            return neutral(w), [], lambda w: [simple(w)]


def neutral(w: Writer) -> list[Message]:
    """A system prompt that changes nothing, or none."""
    return [{"role": "system", "content": w.rng.choice(NEUTRAL_SYSTEMS)}] if w.chance(0.3) else []


def remembering(w: Writer) -> list[Exchange]:
    """Something told, perhaps something else, and the question about it."""
    told, question = memory(w)
    between = [simple(w) for _ in range(w.rng.choice([0, 0, 1, 2, 3]))]
    return [told, *between, question]


def size_of(messages: list[Message]) -> int:
    """About how many tokens the messages take."""
    return sum(
        12 + len(message["content"]) // 3 + 25 * len(message.get("tool_calls", ())) for message in messages
    )
