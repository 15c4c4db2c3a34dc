"""Files that llama.cpp does not decode, as files that it does: images as BMP, sounds as WAV.

Pillow and soundfile are the extra `mullama[media]`. They decode WebP and OGG, and the forms of the other formats that
stb_image and miniaudio do not read, for example a compressed BMP. Only a worker imports them, at the first such file.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.media.formats import Format, MediaHeader
from mullama.chat.media.limits import check_seconds
from mullama.engines.llamacpp.media.files import damaged, name_of
from mullama.errors import Invalid, Unsupported
from mullama.struct import Struct

CONVERTED: dict[Format, tuple[str, str]] = {"webp": ("WebP", "PNG or JPEG"), "ogg": ("OGG", "WAV, MP3 or FLAC")}
"""Formats that only this module decodes: the name and its substitutes."""
_BLOCK = 1 << 16  # frames of a sound that are decoded at once
_SAMPLE_BYTES = 2


class Converted(Struct, frozen=True, eq=False):
    """A file that llama.cpp decodes."""

    data: bytes
    seconds: float
    """Of a sound."""


def converted(medium: Medium, header: MediaHeader, limits: MediaLimits, place: int) -> Converted | None:
    """Return a checked file in a form that llama.cpp decodes; None if the extra is missing and the format has others.

    place: its number in the request, from 1.

    Raises `Invalid` for a damaged file, `TooLarge` beyond the limits, and `Unsupported` for a format that needs the
    extra where it is not installed.
    """
    try:
        library = _pillow() if medium.kind == "image" else _soundfile()
    except (ImportError, OSError) as error:  # OSError: libsndfile is missing
        if header.format not in CONVERTED:
            return None
        label, others = CONVERTED[header.format]
        raise Unsupported(
            f"{name_of(place)} is {label}, and the extra `media`, which decodes it, is not installed",
            hint=f"send {others}, or install it on the server: pip install 'mullama[media]'",
        ) from error
    if medium.kind == "image":
        return _bitmap(library, medium.data, header, place)
    return _sound(library, medium.data, limits, place)


def _pillow() -> Any:
    import PIL.Image

    return PIL.Image


def _soundfile() -> Any:
    import soundfile

    return soundfile


def _bitmap(library: Any, data: bytes, header: MediaHeader, place: int) -> Converted:
    """Return the first picture of an image as BMP, without its transparency: stb_image drops it, too."""
    written = io.BytesIO()
    library.MAX_IMAGE_PIXELS = None  # `server.limits.media` bounds them
    try:
        with library.open(io.BytesIO(data), formats=[header.format.upper()]) as image:
            if image.size != (header.width, header.height):
                raise damaged(place, "image")
            image.convert("RGB").save(written, "BMP")
    except Invalid:
        raise
    except Exception as error:  # a decoder of Pillow raises many kinds for a damaged file
        raise damaged(place, "image") from error
    return Converted(written.getvalue(), 0.0)


def _sound(library: Any, data: bytes, limits: MediaLimits, place: int) -> Converted:
    """Return a sound as WAV of one channel. It is decoded in blocks, so a file that understates its length is refused
    before all of it is in memory."""
    samples = bytearray()
    try:
        with library.SoundFile(io.BytesIO(data)) as sound:
            rate, frames = int(sound.samplerate), 0
            # A file may have up to 1,024 channels.
            for block in sound.blocks(max(1, _BLOCK // sound.channels), dtype="float32", always_2d=True):
                frames += len(block)
                check_seconds(frames / rate, name_of(place), limits)
                mono = block.mean(axis=1).clip(-1.0, 1.0)
                samples += (mono * 32767).astype("<i2").tobytes()
    except library.SoundFileError as error:
        raise damaged(place, "audio") from error
    if not frames:
        raise Invalid(f"{name_of(place)} has no samples", hint="send a sound")
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * _SAMPLE_BYTES, _SAMPLE_BYTES, 8 * _SAMPLE_BYTES)
    riff = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", len(form))
    return Converted(riff + form + struct.pack("<4sI", b"data", len(samples)) + bytes(samples), frames / rate)
