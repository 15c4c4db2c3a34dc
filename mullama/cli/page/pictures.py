"""Pictures as characters, two pixels in each, so that they need no protocol of a terminal.

Pillow decodes them, which is the extra `mullama[media]`. Without it a picture is a line with its name.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

from mullama.chat.media.formats import header_of

PictureRow = tuple[tuple[str, str], ...]
"""Characters with their colours: `#rrggbb`, `#rrggbb on #rrggbb`, or nothing."""

COLUMNS, LINES = 48, 14
"""The most characters of a picture."""
_MOST_PIXELS = 40_000_000
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_OPAQUE = 128


def pictures(contents: Iterable[str]) -> Iterator[tuple[PictureRow, ...]]:
    """Yield the rows of each picture among contents in base64. Others and damaged ones are left out."""
    try:
        library = _pillow()
    except ImportError:
        return
    for content in contents:
        if rows := _rows(library, base64.b64decode(content)):
            yield rows


def _rows(library: Any, data: bytes) -> tuple[PictureRow, ...]:
    """Return the rows of a picture; nothing for a file that is none, is damaged, or has too many pixels."""
    try:
        header = header_of(data)
        if header is None or not 0 < header.width * header.height <= _MOST_PIXELS:
            return ()
        with library.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.draft("RGB", (2 * COLUMNS, 4 * LINES))
            small = image.convert("RGBA")
            small.thumbnail((COLUMNS, 2 * LINES))
            return tuple(_characters(small))
    except Exception:  # noqa: BLE001 - Pillow raises errors of many kinds for a damaged file
        return ()


def _characters(image: Any) -> Iterator[PictureRow]:
    width, height = image.size
    pixels = image.load()
    for y in range(0, height, 2):
        lower = y + 1 < height
        yield tuple(_character(_colour(pixels[x, y]), _colour(pixels[x, y + 1]) if lower else "") for x in range(width))


def _character(upper: str, lower: str) -> tuple[str, str]:
    if upper and lower:
        return "▀", f"{upper} on {lower}"
    return ("▀", upper) if upper else ("▄", lower) if lower else (" ", "")


def _colour(pixel: tuple[int, int, int, int]) -> str:
    """Return the colour of a pixel; nothing for one that is transparent."""
    red, green, blue, alpha = pixel
    return f"#{red:02x}{green:02x}{blue:02x}" if alpha >= _OPAQUE else ""


def _pillow() -> Any:
    import PIL.Image

    return PIL.Image
