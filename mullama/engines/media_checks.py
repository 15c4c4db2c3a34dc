"""The checks of media that need no look at their bytes: their number, and what the model reads. Pure."""

from __future__ import annotations

from mullama.chat.media.limits import check_count
from mullama.engines.base import MediaFacts, Prompt
from mullama.errors import Unsupported

_NAMES = {"image": "images", "audio": "sounds"}


def check_media(prompt: Prompt, facts: MediaFacts | None) -> None:
    """Raise `Unsupported` for media that a model does not read, `TooLarge` for more than one request may have.

    facts: of the model's projector, None without one.
    """
    for medium in prompt.media:
        if facts is None or not (facts.vision if medium.kind == "image" else facts.audio):
            raise Unsupported(f"the model reads no {_NAMES[medium.kind]}", hint=_hint(facts))
    check_count(len(prompt.media), prompt.media_limits)


def _hint(facts: MediaFacts | None) -> str:
    if facts is None:
        return "give the model a projector: mmproj in the manifest"
    kinds = [name for name, able in (("images", facts.vision), ("sounds", facts.audio)) if able]
    return f"its projector reads {' and '.join(kinds) or 'nothing'}"
