"""Values to bytes: JSON, and the frames of a stream as server-sent events or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal

from mullama.dialects.base import Frame
from mullama.names import JSONValue

Media = Literal["text/event-stream", "application/x-ndjson"]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def to_json(value: JSONValue) -> bytes:
    """Compact UTF-8 JSON. NaN and infinity are a `ValueError`: no client could read them."""
    return _encode(value).encode()


def to_bytes(frames: Iterable[Frame], media: Media) -> bytes:
    """All frames as one piece, to be sent in one write: no event is ever cut in two."""
    frame_bytes = _event if media == "text/event-stream" else _line
    return b"".join(map(frame_bytes, frames))


def _event(frame: Frame) -> bytes:
    text = frame.data if isinstance(frame.data, str) else _encode(frame.data)
    if frame.comment:
        return f": {text}\n\n".encode()
    name = f"event: {frame.event}\n" if frame.event else ""
    data = text if "\n" not in text else text.replace("\n", "\ndata: ")
    return f"{name}data: {data}\n\n".encode()


def _line(frame: Frame) -> bytes:
    # A comment has no form in NDJSON, and blank lines upset some readers.
    return b"" if frame.comment else _encode(frame.data).encode() + b"\n"
