"""Values to bytes: JSON, and the frames of a stream as server-sent events or lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic_core import to_json as encode

from mullama.dialects.base import Frame
from mullama.names import JSONValue

Media = Literal["text/event-stream", "application/x-ndjson"]


def to_json(value: JSONValue) -> bytes:
    """Compact UTF-8 JSON. NaN and infinity, which JSON does not have, become null."""
    return encode(value, inf_nan_mode="null")


def to_bytes(frames: Iterable[Frame], media: Media) -> bytes:
    """All frames as one piece, to be sent in one write: no event is ever cut in two."""
    frame_bytes = _event if media == "text/event-stream" else _line
    return b"".join(map(frame_bytes, frames))


def _event(frame: Frame) -> bytes:
    data = frame.data.encode().replace(b"\n", b"\ndata: ") if isinstance(frame.data, str) else to_json(frame.data)
    if frame.comment:
        return b": %b\n\n" % data
    name = b"event: %b\n" % frame.event.encode() if frame.event else b""
    return b"%bdata: %b\n\n" % (name, data)


def _line(frame: Frame) -> bytes:
    # A comment has no form in NDJSON, and blank lines upset some readers.
    return b"" if frame.comment else to_json(frame.data) + b"\n"
