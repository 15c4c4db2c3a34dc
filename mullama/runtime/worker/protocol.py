"""The messages between the server and a worker: frames of JSON, and the engine's values as JSON.

A frame is a 4-byte little-endian length and UTF-8 JSON. A message is an object with a `t` (its kind). The
engine's dataclasses travel as `[class name, {field: value}]`. Pieces of text, which are most of the traffic, have a
frame of their own kind: a zero byte, then for each piece its id, count and length in bytes (4 bytes each) and its
text. Lengths are bounded, and a message that does not decode is an error of the other side.
"""

from __future__ import annotations

import json
import struct
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from itertools import groupby
from typing import Any

from mullama.chat.types import Constraint, Sampling, TokenLogprob
from mullama.engines import base
from mullama.errors import EngineFailed

PROTOCOL = 2
MAX_FRAME = 64 * 1024 * 1024

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        base.Adapter, base.WeightsOptions, base.Prefix, base.ContextOptions, base.EngineFacts, base.ContextFacts,
        base.Generate, base.Embed, base.Begun, base.Prefilled, base.Piece, base.Ended, base.Embedded, base.Failed,
        base.EngineStats, base.EngineChoice, Sampling, Constraint, TokenLogprob,
    )
}  # fmt: skip


_LENGTH = struct.Struct("<I")
_PIECE = struct.Struct("<III")  # id, count, bytes
_PIECES = b"\x00"  # begins a frame of pieces; no JSON does
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def pack(message: dict[str, Any]) -> bytes:
    """One frame."""
    return _frame(_encode(message).encode("utf-8", "replace"))


def pack_outputs(outputs: Sequence[base.Output]) -> bytes:
    """What the engine produced, in its order, as one frame or several."""
    frames = []
    for is_plain, group in groupby(outputs, _is_plain):
        if is_plain:
            frames.append(_frame(_PIECES + b"".join(map(_pack_piece, group))))
        else:
            frames.append(pack({"t": "out", "o": dump(tuple(group))}))
    return b"".join(frames)


def _is_plain(output: base.Output) -> bool:
    return isinstance(output, base.Piece) and not output.logprobs and not output.echo


def _pack_piece(piece: Any) -> bytes:
    text: bytes = piece.text.encode("utf-8", "replace")
    return _PIECE.pack(piece.id, piece.count, len(text)) + text


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Bytes in any cuts → whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are complete now, those of kind `out` with their outputs as values.

        Raises `EngineFailed` on a frame that cannot be one.
        """
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= 4:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > MAX_FRAME:
                raise EngineFailed(f"the worker sent a frame of {size} bytes")
            if len(self._buffer) - start - 4 < size:
                break
            body = self._buffer[start + 4 : start + 4 + size]
            start += 4 + size
            yield _message(body)
        del self._buffer[:start]


def _message(body: bytearray) -> dict[str, Any]:
    if body.startswith(_PIECES):
        return {"t": "out", "o": list(_pieces(body))}
    try:
        message = json.loads(body.decode())
    except ValueError as error:
        raise EngineFailed("the worker sent a message that is not JSON") from error
    if not isinstance(message, dict) or "t" not in message:
        raise EngineFailed("the worker sent a message without a kind")
    if message["t"] == "out":
        try:
            message["o"] = [_output(tree) for tree in message["o"]]
        except (KeyError, TypeError, IndexError) as error:
            raise EngineFailed("the worker sent outputs that are none") from error
    return message


def _pieces(body: bytearray) -> Iterator[base.Piece]:
    start = len(_PIECES)
    try:
        while start < len(body):
            id, count, size = _PIECE.unpack_from(body, start)
            start += _PIECE.size
            if size > len(body) - start:
                raise ValueError(f"{size} bytes of text, where {len(body) - start} are left")
            yield base.Piece(id=id, text=body[start : start + size].decode(), count=count)
            start += size
    except (struct.error, ValueError) as error:
        raise EngineFailed(f"the worker sent pieces that do not decode: {error}") from error


def dump(value: Any) -> Any:
    """A value of the engine seam as JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {f.name: dump(getattr(value, f.name)) for f in _fields(type(value))}]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [dump(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": repr(value)}
    return value


def load(cls: type, tree: Any) -> Any:
    """The inverse of `dump` for a dataclass of the seam; raises `EngineFailed` when the tree is not one."""
    try:
        return _build(cls, tree)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineFailed(f"the worker sent a {cls.__name__} that does not decode: {error}") from error


def _output(tree: list[Any]) -> base.Output:
    cls = _CLASSES.get(tree[0])
    if cls is None:
        raise EngineFailed(f"the worker sent an unknown {tree[0]!r}")
    return typing.cast(base.Output, load(cls, tree))


def _build(cls: type, tree: Any) -> Any:
    name, values = tree
    if name != cls.__name__:
        raise ValueError(f"a {name} where a {cls.__name__} was due")
    hints = _hints(cls)
    return cls(**{key: _convert(hints[key], value) for key, value in values.items()})


def _convert(hint: Any, value: Any) -> Any:
    """A JSON value as the annotation wants it: tuples, nested classes, bytes, enums, infinities."""
    if isinstance(value, dict) and set(value) == {"float"}:
        return float(value["float"])
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(typing.get_args(hint), value)
    if origin is tuple:
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(inner[0], item) for item in value)
        return tuple(_convert(kind, item) for kind, item in zip(inner, value, strict=True))
    if isinstance(hint, type):
        if is_dataclass(hint):
            return _build(hint, value)
        if issubclass(hint, StrEnum):
            return hint(value)
        if hint is bytes:
            return bytes.fromhex(value)
    return value


def _convert_union(options: tuple[Any, ...], value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    for option in options:
        if isinstance(value, list) and (typing.get_origin(option) is tuple or is_dataclass(option)):
            return _convert(option, value)
    return value


@cache
def _fields(cls: type) -> tuple[Any, ...]:
    return fields(cls)


@cache
def _hints(cls: type) -> dict[str, Any]:
    # Without explicit namespaces a field that is named like its type (`bytes`) would be resolved to itself.
    return typing.get_type_hints(cls, vars(sys.modules[cls.__module__]), {})
