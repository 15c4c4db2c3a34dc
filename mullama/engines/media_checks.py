"""The checks of media that need no look at their bytes: their number, and what the model reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.limits import check_count
from mullama.engines.base import MediaFacts
from mullama.errors import Unsupported

_NAMES = {"image": "images", "audio": "sounds"}


def check_media(media: Sequence[Medium], limits: MediaLimits, facts: MediaFacts | None) -> None:
    """Raise `Unsupported` for media that a model does not read, `TooLarge` for more than one request may have.

    facts: of the model's projector, None without one.
    """
    for medium in media:
        if facts is None or not (facts.vision if medium.kind == "image" else facts.audio):
            raise Unsupported(f"the model reads no {_NAMES[medium.kind]}", hint=_hint(facts))
    check_count(len(media), limits)


def _hint(facts: MediaFacts | None) -> str:
    if facts is None:
        return "give the model a projector: mmproj in the manifest"
    kinds = [name for name, able in (("images", facts.vision), ("sounds", facts.audio)) if able]
    return f"its projector reads {' and '.join(kinds) or 'nothing'}"
