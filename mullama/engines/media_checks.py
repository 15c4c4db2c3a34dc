"""The checks of media before anything decodes them: their number, their sizes, and what the model reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.chat.media import MediaLimits, Medium
from mullama.engines.base import MediaFacts
from mullama.errors import Invalid, TooLarge, Unsupported
from mullama.units import size as size_text

_NAMES = {"image": "pictures", "audio": "sounds"}


def check_media(media: Sequence[Medium], limits: MediaLimits, facts: MediaFacts | None) -> None:
    """Raise `Unsupported`, `TooLarge` or `Invalid` for media that a model does not read, or that exceed the limits.

    facts: of the model's projector, None without one.
    """
    for place, medium in enumerate(media, start=1):
        able = facts is not None and (facts.vision if medium.kind == "image" else facts.audio)
        if not able:
            raise Unsupported(f"the model reads no {_NAMES[medium.kind]}", hint=_hint(facts))
        if not medium.data:
            raise Invalid(f"medium {place} of the request is empty", hint="send the bytes of a file")
        if len(medium.data) > (most := limits.bytes(medium.kind)):
            raise TooLarge(
                f"medium {place} of the request has {size_text(len(medium.data))}, and {size_text(most)} is the most",
                hint="send a smaller file, or raise server.limits.media in the manifest",
            )
    if len(media) > limits.count:
        raise TooLarge(
            f"the request has {len(media)} media, and {limits.count} is the most",
            hint="send fewer, or raise server.limits.media.count in the manifest",
        )


def _hint(facts: MediaFacts | None) -> str:
    if facts is None:
        return "give the model a projector: mmproj in the manifest"
    kinds = [name for name, able in (("pictures", facts.vision), ("sounds", facts.audio)) if able]
    return f"its projector reads {' and '.join(kinds) or 'nothing'}"
