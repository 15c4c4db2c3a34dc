"""Images and sounds of prompts: their files, formats and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mullama.struct import Struct, repr_without

MediumKind = Literal["image", "audio"]

ABILITIES: Mapping[MediumKind, Literal["vision", "audio"]] = {"image": "vision", "audio": "audio"}
"""The capability of a model that reads media of a kind, by the name that clients know."""

MOST_MEDIA = 1024
"""The highest limit on the number of media in one request."""


class Medium(Struct, frozen=True, kw_only=True):
    """A picture or a sound: the bytes of its file, which only a worker decodes."""

    kind: MediumKind
    data: bytes
    digest: str
    """SHA-256 of the bytes in hexadecimal. It identifies the medium in caches."""

    __repr__ = repr_without("data")

    @classmethod
    def of(cls, kind: MediumKind, data: bytes) -> Medium:
        import hashlib  # takes some milliseconds, and most requests have no media

        return cls(kind=kind, data=data, digest=hashlib.sha256(data).hexdigest())


class MediaLimits(Struct, frozen=True, kw_only=True):
    """The most that the media of one request may need."""

    count: int = 16
    """Media of one request."""
    image: int = 20 * 2**20
    """Bytes of one image file."""
    pixels: int = 40_000_000
    """Pixels of one image, as its file declares them: width x height."""
    sound: int = 200 * 2**20
    """Bytes of one sound file."""
    seconds: float = 10_800.0
    """Duration of one sound, in seconds."""

    def bytes(self, kind: MediumKind) -> int:
        """Return the most bytes of one file."""
        return self.image if kind == "image" else self.sound
