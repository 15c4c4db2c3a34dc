"""Images and sounds of prompts: their files, formats and limits."""

from __future__ import annotations

from typing import Literal

from mullama.struct import Struct, repr_without

MediumKind = Literal["image", "audio"]


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

    count: int = 32
    """Media of one request."""
    bytes: int = 20 * 2**20
    """Bytes of one file."""
    pixels: int = 32 * 2**20
    """Pixels of one picture, as its file declares them: width x height."""
    seconds: float = 1800.0
    """Duration of one sound, in seconds."""
