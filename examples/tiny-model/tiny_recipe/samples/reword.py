"""Says a phrasing in another way by general rules of English."""

from __future__ import annotations

import random
import re

from tiny_recipe.phrases.phrasing import parted

KNOWING = parted(
    """Tell me {}. | Can you tell me {}? | Do you know {}? | I want to know {}. | I would like to know {}. | Say {}.
    Please tell me {}. | Could you tell me {}? | I need to know {}. | I wonder {}. | Explain {}."""
)
ASKING = parted(
    """Please {} | Can you {} | Could you {} | Would you {} | Will you {} | I want you to {} | I would like you to {}
    You should {} | Now {} | Go and {} | I need you to {}"""
)
IMPERATIVES = frozenset(
    """Tell Name Give Write Explain Say List Describe Define Show Set Start Play Book Reserve Find Search Turn Switch
    Heat Make Translate Convert Change Get Save Add Multiply Send Read Open Delete Remove Order Roll Throw Look Check
    Repeat Echo Spell Count Print Put Calculate Compute Work Answer Always Use Begin End Finish Reply Talk Speak Call
    Run Return Sum Note Keep Remember""".split()
)
THIRD_PERSON = {
    "do": "does", "mean": "means", "say": "says", "show": "shows", "contain": "contains",
    "return": "returns", "have": "has",
}  # fmt: skip


def reworded(rng: random.Random, text: str) -> str:
    """The same request as an indirect question or with a polite opening, or the text itself if no rule fits."""
    if found := re.fullmatch(r"(What|Who|Where) (is|are) ([^?]+)\?", text):
        return rng.choice(KNOWING).replace("{}", f"{found[1].lower()} {found[3]} {found[2]}")
    found = re.fullmatch(r"(What|Which|How many)( \w+)? does ([^?]+) (\w+)\?", text)
    if found and found[4] in THIRD_PERSON:
        clause = f"{found[1].lower()}{found[2] or ''} {found[3]} {THIRD_PERSON[found[4]]}"
        return rng.choice(KNOWING).replace("{}", clause)
    if text.split()[0] not in IMPERATIVES:
        return text
    opening = rng.choice(ASKING)
    wish = text[0].lower() + text[1:]
    if wish.endswith(".") and opening.split()[0] in ("Can", "Could", "Would", "Will"):
        wish = wish[:-1] + "?"
    return opening.replace("{}", wish)


def bare(text: str) -> str:
    """The words alone, to tell whether two phrasings are the same but for marks and case."""
    return re.sub(r"[^\w{}]+", " ", text).strip().lower()
