"""Small Python functions, and functions with a hole that is to be filled."""

from __future__ import annotations

import re

from tiny_recipe.phrases.code import FUNCTIONS
from tiny_recipe.samples.writer import Writer

# Names of functions by what they do: the name decides the body.
NAMES_BY_USE = {
    "add": "add sum_of plus add_numbers",
    "subtract": "subtract minus difference",
    "multiply": "multiply times product",
    "divide": "divide quotient safe_divide",
    "is_even": "is_even even",
    "is_odd": "is_odd odd",
    "largest": "largest maximum bigger",
    "smallest": "smallest minimum smaller",
    "total": "total sum_all add_all",
    "count_all": "count_all how_many length",
    "factorial": "factorial fact",
    "greet": "greet say_hello hello",
    "double": "double twice",
    "square": "square squared",
    "positives": "positives only_positive",
    "contains": "contains has includes",
    "average": "average mean",
}
VARIABLES = "x y a b n m left right first second value number item element name".split()
COLLECTIONS = "items values numbers data elements things".split()
NAME = re.compile(r"[A-Za-z_]+")
FIXED_NAMES = frozenset(NAME.findall(re.sub(r"{\w+}", "", " ".join(FUNCTIONS))))


def code(w: Writer) -> str:
    """A small Python function; its name says what it does."""
    a, b = w.rng.sample([*VARIABLES, *(w.word() for _ in range(3))], 2)
    return w.rng.choice(FUNCTIONS).format(
        a=a,
        b=b,
        items=w.rng.choice(COLLECTIONS),
        Class=w.word().capitalize(),
        **{use: w.rng.choice(names.split()) for use, names in NAMES_BY_USE.items()},
    )


def fill_in(w: Writer) -> tuple[str, str]:
    """A prompt with a hole in a function, and what fills it; every name in the hole also stands around it."""
    while True:
        prefix, middle, suffix = holed(w)
        around = FIXED_NAMES.union(NAME.findall(prefix + suffix))
        if middle.strip() and around.issuperset(NAME.findall(middle)):
            return f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>", middle


def holed(w: Writer) -> tuple[str, str, str]:
    """Code before a hole, in it and after it; the hole is the rest of a line, a line, or all lines to the end."""
    text = code(w)
    if w.chance(0.3):
        text = code(w) + "\n\n" + text
    begin = w.rng.choice([i + 1 for i, char in enumerate(text) if char == "\n" and i + 1 < len(text)])
    end = text.index("\n", begin)
    if w.chance(0.25) or not text[begin:end].strip():
        end = len(text) - 1
    elif (not w.held_out and w.chance(0.5)) or w.chance(0.5):
        indent = len(text[begin:]) - len(text[begin:].lstrip())
        spaces = [i for i in range(begin + indent, end) if text[i] == " "] or [begin + indent]
        begin = w.rng.choice(spaces)
    return text[:begin], text[begin:end], text[end:]
