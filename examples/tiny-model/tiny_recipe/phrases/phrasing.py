"""The type of a list of phrasings, of which some are held out for the probes."""

from __future__ import annotations

import re
from dataclasses import dataclass

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Phrasings:
    """Ways to say one thing: those that the model learns from, and those that only probes use."""

    learned: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Ways to ask for something, and the one answer to all of them."""

    asked: Phrasings
    answer: str


def phrasings(learned: str, held_out: str) -> Phrasings:
    """Read 'one way | another way', a way per bar or line."""
    return Phrasings(parted(learned), parted(held_out))


def parted(text: str) -> tuple[str, ...]:
    """The parts between bars and line ends, without the space around them."""
    return tuple(part.strip() for part in re.split(r"[|\n]", text) if part.strip())


def pairs(text: str) -> Pairs:
    """Read 'a=b, c=d' as (('a', 'b'), ('c', 'd'))."""
    found = [item.strip().split("=") for item in text.replace("\n", " ").split(",") if item.strip()]
    return tuple((a, b) for a, b in found)
