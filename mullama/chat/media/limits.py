"""Checks of the files of a request before anything decodes them: formats, sizes and numbers, by their headers."""

from __future__ import annotations

from mullama.chat.media import MediaLimits, MediumKind
from mullama.chat.media.formats import IMAGES, KINDS, SOUNDS, MediaHeader, format_of, header_of
from mullama.errors import Invalid, TooLarge
from mullama.units import size

_RAISE = "send a smaller one, or raise server.limits.media.{} in the manifest"


def check_count(count: int, limits: MediaLimits) -> None:
    """Raise `TooLarge` for more images and sounds than one request may have."""
    if count > limits.count:
        raise TooLarge(
            f"the request has {count} images and sounds, and {limits.count} are the most",
            hint="send fewer, or raise server.limits.media.count in the manifest",
        )


def check_file(kind: MediumKind, data: bytes, place: str, limits: MediaLimits) -> MediaHeader:
    """Return the facts of a file's header.

    Raises `Invalid` for a file of an unknown format or without content, `TooLarge` for one beyond the limits.

    place: the field of the request that has the file, for the errors.
    """
    name, field = format_of(data), place or "messages"
    if name is None or KINDS[name] != kind:
        thing, formats = ("an image", IMAGES) if kind == "image" else ("a sound", SOUNDS)
        raise Invalid(f"{field} is not {thing} of a known format", hint=f"send {formats}", field=field)
    if len(data) > (most := limits.bytes(kind)):
        limit = "image" if kind == "image" else "sound"
        raise TooLarge(f"{field} has {size(len(data))}, and {size(most)} is the most", hint=_RAISE.format(limit))
    header = header_of(data)
    if header is None:
        raise Invalid(f"{field} is damaged: its {name} header ends early", hint="send the complete file", field=field)
    if kind == "image" and not (header.width and header.height):
        raise Invalid(f"{field} has {header.width} x {header.height} pixels", hint="send an image", field=field)
    if header.width * header.height > limits.pixels:
        raise TooLarge(
            f"{field} has {header.width} x {header.height} pixels, and {limits.pixels} is the most",
            hint=_RAISE.format("pixels"),
        )
    check_seconds(header.seconds, field, limits)
    return header


def check_seconds(seconds: float, place: str, limits: MediaLimits) -> None:
    """Raise `TooLarge` for a sound that is too long. place: as for `check_file`."""
    if seconds > limits.seconds:
        raise TooLarge(
            f"{place} has {seconds:.0f} s, and {limits.seconds:g} s is the most", hint=_RAISE.format("seconds")
        )
