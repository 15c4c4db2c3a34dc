"""Names of split sets: `name-00001-of-00003.gguf` and its siblings are one set of weights."""

from __future__ import annotations

import re
from typing import Final

from mullama.errors import Invalid

_PART: Final = re.compile(
    r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)", re.IGNORECASE | re.DOTALL
)
MAX_PARTS: Final = 999


def split_name(name: str) -> tuple[str, ...]:
    """Return the names of all parts of the set of a file, in order; `(name,)` for a file that is no part."""
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count <= MAX_PARTS:
        raise Invalid(f"{name[-80:]!r} is part {number} of {count}, which is impossible")
    return tuple(f"{match['stem']}-{part:05d}-of-{count:05d}{match['end']}" for part in range(1, count + 1))


def stem(name: str) -> str:
    """Return the name without `.gguf` and the part number, which is the same for all parts of a set."""
    match = _PART.fullmatch(name)
    return match["stem"] if match else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)
