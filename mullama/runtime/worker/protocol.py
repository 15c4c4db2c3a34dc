"""The messages between the server and a worker.

A frame is a 4-byte little-endian length and a body of that many bytes. A body is one MessagePack message: a command
to the worker or a reply to the server, each a tagged struct around the values of the engine seam. MessagePack rather
than JSON, because it carries bytes, infinities and NaN.

Pieces of text are most of the traffic and have a body of their own: a zero byte, which begins no message, then for
each piece its id, token count and length in bytes (4 bytes each) and its UTF-8 text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Any, Final, Generic, TypeVar

import msgspec

from mullama.engines import base
from mullama.errors import EngineFailed, Kind, TooLarge
from mullama.units import size as size_text

T = TypeVar("T")
M = TypeVar("M")

PROTOCOL: Final = 7
MAX_FRAME: Final = 320 * 1024 * 1024  # more than `server.limits.media` allows for one sound

_LENGTH = struct.Struct("<I")
_PIECE = struct.Struct("<III")  # id, count, bytes
_PIECES = b"\x00"  # the first byte of a body of pieces; a message begins with the mark of an array


class WorkerMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A command or a reply."""


# Commands. Those with a `number` are answered by an `Answer` or an `Error` of that number.


class LoadWeights(WorkerMessage, frozen=True, tag=True):
    number: int
    choice: base.EngineChoice
    logs: bool = False
    """Send the lines of the engine's log from now on, each as a `LogLine`."""


class OpenContext(WorkerMessage, frozen=True, tag=True):
    number: int
    name: str
    options: base.ContextOptions


class CloseContext(WorkerMessage, frozen=True, tag=True):
    number: int
    name: str


class RetuneContext(WorkerMessage, frozen=True, tag=True):
    number: int
    name: str
    threads: int
    scales: tuple[float, ...]


class DeclarePrefixes(WorkerMessage, frozen=True, tag=True):
    number: int
    name: str
    prefixes: tuple[base.Prefix, ...]


class Tokenize(WorkerMessage, frozen=True, tag=True):
    number: int
    text: str
    add_special: bool
    parse_special: bool
    joint: str | None = None


class Detokenize(WorkerMessage, frozen=True, tag=True):
    number: int
    tokens: tuple[int, ...]


class GetPieces(WorkerMessage, frozen=True, tag=True):
    number: int
    tokens: tuple[int, ...]


class CountTokens(WorkerMessage, frozen=True, tag=True):
    number: int
    prompt: base.Prompt


class GetStats(WorkerMessage, frozen=True, tag=True):
    number: int


class Ping(WorkerMessage, frozen=True, tag=True):
    number: int


class GetLog(WorkerMessage, frozen=True, tag=True):
    """Answered at once, also during a load: the last lines of the engine's log, oldest first."""

    number: int


class SubmitGenerate(WorkerMessage, frozen=True, tag=True):
    job: base.Generate


class SubmitEmbed(WorkerMessage, frozen=True, tag=True):
    job: base.Embed


class CancelJob(WorkerMessage, frozen=True, tag=True):
    id: int


class ShareCores(WorkerMessage, frozen=True, tag=True):
    rank: int
    of: int


class Exit(WorkerMessage, frozen=True, tag=True):
    pass


TextQuestion = Tokenize | Detokenize | GetPieces
"""Answered from the vocabulary alone."""

Question = (
    CountTokens | LoadWeights | OpenContext | CloseContext | RetuneContext | DeclarePrefixes | TextQuestion | GetStats
)
Task = Question | SubmitGenerate | SubmitEmbed | CancelJob | ShareCores
"""Performed between two decodes, in order of arrival."""

Command = Task | Ping | GetLog | Exit


# Replies


class Hello(WorkerMessage, frozen=True, tag=True):
    """The first message of a worker."""

    protocol: int
    pid: int


class LoadReport(WorkerMessage, frozen=True, tag=True):
    """Progress of a load, 0 to 1."""

    share: float


class LogLine(WorkerMessage, frozen=True, tag=True):
    """A line of the engine's log."""

    text: str


Value = msgspec.Raw
"""An encoded value whose type its reader knows."""


class CallResult(WorkerMessage, frozen=True, tag=True):
    """The answer to a question. The type of the value depends on the question; see `read_value`."""

    number: int
    value: Value


class CallError(WorkerMessage, frozen=True, tag=True):
    """The failure of a question."""

    number: int
    kind: Kind
    message: str
    hint: str


class Pong(WorkerMessage, frozen=True, tag=True):
    """The answer to a ping."""

    number: int
    steps: int
    """Decodes and finished commands since the start."""
    idle: bool
    """It waits for commands."""
    remark: str = ""
    """See `Engine.remark`."""


def _tagged(kind: type) -> Any:
    """Return a struct around a dataclass: msgspec needs tagged members in a union, and only structs have tags."""
    return msgspec.defstruct(kind.__name__, [("value", kind)], tag=True, array_like=True, frozen=True)


_TAGGED = {
    kind: _tagged(kind)
    for kind in (base.Begun, base.Prefilled, base.Piece, base.Ended, base.Embedded, base.Failed)
}  # fmt: skip


class Outputs(WorkerMessage, frozen=True, tag=True):
    """Outputs of the engine that are not mere text, each in its tagged struct."""

    outputs: list[reduce(or_, _TAGGED.values())]  # type: ignore[valid-type]


Reply = Hello | LoadReport | LogLine | CallResult | CallError | Pong

_encoder = msgspec.msgpack.Encoder()

# Each process reads one of the two, and a decoder for all commands takes a while to make.


def command_reader() -> Callable[[bytearray], Command]:
    """Return the function that decodes what a worker receives."""
    return msgspec.msgpack.Decoder(Command).decode


def reply_reader() -> Callable[[bytearray], Any]:
    """Return the function that decodes what a worker sends: a `Reply`, or `Outputs`."""
    return msgspec.msgpack.Decoder(Reply | Outputs).decode


def pack(message: WorkerMessage) -> bytes:
    """Return the frame of one message; raise `TooLarge` for one that the other side would refuse."""
    return _frame(_encode(message))


def pack_outputs(outputs: Sequence[base.Output]) -> bytes:
    """Return the engine's outputs, in their order, as one frame or several."""
    frames = []
    for is_text, group in groupby(outputs, _is_text):
        if is_text:
            frames.append(_frame(_PIECES + b"".join(map(_pack_piece, group))))
        else:
            frames.append(_pack_tagged(tuple(group)))
    return b"".join(frames)


def _pack_tagged(outputs: Sequence[base.Output]) -> bytes:
    """Return outputs in one frame; an output that is too large for a frame of its own becomes a `Failed`."""
    try:
        return pack(Outputs(outputs=[_TAGGED[type(output)](output) for output in outputs]))
    except TooLarge as error:
        if len(outputs) > 1:
            return b"".join(_pack_tagged((output,)) for output in outputs)
        failed = base.Failed(id=outputs[0].id, kind=error.kind, message=error.message, hint=error.hint)
        return _pack_tagged((failed,))


def answer(number: int, value: object) -> CallResult:
    return CallResult(number=number, value=Value(_encode(value)))


def read_value(kind: type[T], value: Value) -> T:
    """Return the value of an answer. Raises `EngineFailed` when it is of another type."""
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise EngineFailed(f"an answer of the worker cannot be decoded: {error}") from error


def _is_text(output: base.Output) -> bool:
    return isinstance(output, base.Piece) and not output.logprobs and not output.echo and output.details is None


def _pack_piece(piece: Any) -> bytes:
    text: bytes = piece.text.encode("utf-8", "replace")
    return _PIECE.pack(piece.id, piece.count, len(text)) + text


def _frame(body: bytes) -> bytes:
    if len(body) > MAX_FRAME:
        raise TooLarge(
            f"the request needs a message of {size_text(len(body))} between server and worker, and "
            f"{size_text(MAX_FRAME)} is the most",
            hint="send less at once",
        )
    return _LENGTH.pack(len(body)) + body


def _encode(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # A lone surrogate, as in the name of a file that is not UTF-8: the message matters more than the character.
        return _encoder.encode(_without_surrogates(msgspec.to_builtins(value, builtin_types=(bytes,))))


def _without_surrogates(tree: Any) -> Any:
    if isinstance(tree, str):
        return tree.encode("utf-8", "replace").decode()
    if isinstance(tree, list | tuple):
        return [_without_surrogates(item) for item in tree]
    if isinstance(tree, dict):
        return {name: _without_surrogates(item) for name, item in tree.items()}
    return tree


class Unpacker(Generic[M]):
    """Splits a byte stream, received in any parts, into messages. read: decodes the body of one message."""

    def __init__(self, read: Callable[[bytearray], M]) -> None:
        self._read = read
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M | list[base.Output]]:
        """Yield each message that is complete now; outputs of the engine as a list.

        Raises `EngineFailed` for bytes that are no message.
        """
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= 4:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > MAX_FRAME:
                raise EngineFailed(f"a frame between server and worker has {size} bytes")
            if len(self._buffer) - start - 4 < size:
                break
            body = self._buffer[start + 4 : start + 4 + size]
            start += 4 + size
            yield self._message(body)
        del self._buffer[:start]

    def _message(self, body: bytearray) -> M | list[base.Output]:
        if body.startswith(_PIECES):
            return list(_pieces(body))
        try:
            message = self._read(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFailed(f"a message between server and worker cannot be decoded: {error}") from error
        return [output.value for output in message.outputs] if isinstance(message, Outputs) else message


def _pieces(body: bytearray) -> Iterator[base.Piece]:
    start = len(_PIECES)
    try:
        while start < len(body):
            id, count, size = _PIECE.unpack_from(body, start)
            start += _PIECE.size
            if size > len(body) - start:
                raise ValueError(f"{size} bytes of text, but only {len(body) - start} are left")
            yield base.Piece(id=id, text=body[start : start + size].decode(), count=count)
            start += size
    except (struct.error, ValueError) as error:
        raise EngineFailed(f"pieces of the worker cannot be decoded: {error}") from error
