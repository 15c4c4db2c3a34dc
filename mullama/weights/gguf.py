"""Reads the header of a GGUF file incrementally and within bounds; each length is checked before it is used.

The meaning of the keys is checked by `inspect`. Format: magic, version, counts, key-value pairs, tensor
descriptions, padding, data (the GGUF specification, versions 2 and 3, little endian).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from mullama.errors import BadWeights
from mullama.struct import Struct
from mullama.weights.tensors import BY_NUMBER, REMOVED, Tensor, TensorType

Read = Callable[[int, int], bytes]
"""`read(offset, length)` returns exactly this range, which is within the size of the file."""

MAX_HEADER: Final = 128 * 1024**2
MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_STRINGS: Final = 4 * 1024**2
MAX_TEXT: Final = 16 * 1024**2
MAX_ALIGNMENT: Final = 4096
MAX_DIMENSIONS: Final = 4
_CHUNK: Final = 1024**2

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TENSOR_END = struct.Struct("<IQ")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NAMES = {0: "uint8", 1: "int8", 2: "uint16", 3: "int16", 4: "uint32", 5: "int32", 6: "float32", 7: "bool",
          8: "string", 9: "array", 10: "uint64", 11: "int64", 12: "float64"}  # fmt: skip

CUT_SHORT = "the file is cut short or damaged: download it again"


class Array(Struct, frozen=True):
    """An array of a header. Its bytes are decoded on demand."""

    kind: str
    count: int
    raw: bytes

    def numbers(self) -> tuple[int | float | bool, ...]:
        code = next(c for number, c in _SCALARS.items() if _NAMES[number] == self.kind)
        return struct.unpack(f"<{self.count}{code}", self.raw)

    def strings(self) -> list[bytes]:
        """Return the elements as bytes, which may be invalid UTF-8."""
        raw, unpack, position, found = self.raw, _U64.unpack_from, 0, []
        for _ in range(self.count):
            start = position + 8
            position = start + unpack(raw, position)[0]
            found.append(raw[start:position])
        return found


Value = bool | int | float | str | Array


class Header(Struct, frozen=True, kw_only=True):
    """The header of one file. data_offset: the first byte of tensor data. types: the stored type of each key."""

    version: int
    size: int
    alignment: int
    data_offset: int
    metadata: Mapping[str, Value]
    types: Mapping[str, str]
    tensors: tuple[Tensor, ...]


def read_header(read: Read, size: int) -> Header:
    """Return the header of a file of `size` bytes; raise `BadWeights` that names the key or tensor and the numbers."""
    if not size:
        raise BadWeights("the file is empty", hint="download it again")
    cursor = _Cursor(read, size)
    version = _opening(cursor)
    tensor_count, key_count = cursor.u64("the tensor count"), cursor.u64("the key count")
    _bounded("the header counts tensors", tensor_count, MAX_TENSORS)
    _bounded("the header counts keys", key_count, MAX_KEYS)
    metadata, types = _keys(cursor, key_count)
    alignment = _alignment(metadata, types)
    described = [_tensor(cursor, number) for number in range(tensor_count)]
    data = -(-cursor.position // alignment) * alignment
    return Header(
        version=version, size=size, alignment=alignment, data_offset=data, metadata=metadata, types=types,
        tensors=_placed(described, data, alignment, size),
    )  # fmt: skip


def _opening(cursor: _Cursor) -> int:
    magic = cursor.take(4, "the first four bytes")
    if magic != b"GGUF":
        raise BadWeights(
            f"the file begins with {magic!r}, not with b'GGUF'",
            hint="only GGUF files can be run; safetensors, PyTorch and older ggml files need conversion",
        )
    version = cursor.u32("the version")
    if version & 0xFFFF == 0:
        raise BadWeights("the file is big endian", hint="convert it to little endian, or fetch another file")
    if version not in (2, 3):
        raise BadWeights(f"the file is GGUF version {version}", hint="versions 2 and 3 can be read")
    return version


class _Cursor:
    """Reads a file from its beginning in growing chunks, never beyond `MAX_HEADER` or the end of the file."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self.size, self.position = read, size, 0
        self.buffer = bytearray()

    def ensure(self, end: int, what: str) -> None:
        """Read up to `end`; raise `BadWeights` that names `what` when the file ends before it."""
        if end <= len(self.buffer):
            return
        if end > self.size:
            raise BadWeights(f"{what} ends at byte {end}, the file has {self.size} bytes", hint=CUT_SHORT)
        if end > MAX_HEADER:
            raise BadWeights(f"{what} ends at byte {end}: a header may have {MAX_HEADER} bytes")
        have = len(self.buffer)
        wanted = min(max(end, have * 2, _CHUNK), self.size, MAX_HEADER) - have
        piece = self._read(have, wanted)
        if len(piece) != wanted:
            raise BadWeights(f"only {len(piece)} of {wanted} bytes could be read at {have}", hint=CUT_SHORT)
        self.buffer += piece

    def take(self, length: int, what: str) -> bytes:
        start, end = self.position, self.position + length
        self.ensure(end, what)
        self.position = end
        return bytes(self.buffer[start:end])

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def text(self, what: str, limit: int) -> str:
        length = self.u64(f"the length of {what}")
        _bounded(f"{what} has bytes", length, limit)
        raw = self.take(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise BadWeights(f"{what} is not UTF-8 at its byte {error.start}") from error

    def strings(self, count: int, what: str) -> bytes:
        """Return the bytes of `count` strings, with each length checked."""
        _bounded(f"{what} has strings", count, MAX_STRINGS)
        start = position = self.position
        buffer, have, unpack = self.buffer, len(self.buffer), _U64.unpack_from
        for number in range(count):
            if position + 8 > have:
                self.ensure(position + 8, f"{what}, element {number}")
                have = len(buffer)
            position += 8 + unpack(buffer, position)[0]
            if position > have:
                self.ensure(position, f"{what}, element {number}")
                have = len(buffer)
        self.position = position
        return bytes(buffer[start:position])


def _keys(cursor: _Cursor, count: int) -> tuple[dict[str, Value], dict[str, str]]:
    metadata: dict[str, Value] = {}
    types: dict[str, str] = {}
    for number in range(count):
        key = cursor.text(f"the name of key {number}", 65_535)
        if not key or key in metadata:
            raise BadWeights(f"key {number} is {'empty' if not key else f'a second {key!r}'}")
        kind = cursor.u32(f"the type of key {key}")
        metadata[key] = _value(cursor, kind, key)
        types[key] = _NAMES[kind]
    return metadata, types


def _value(cursor: _Cursor, kind: int, key: str) -> Value:
    what = f"key {key}"
    if kind == _STRING:
        return cursor.text(what, MAX_TEXT)
    if kind == _ARRAY:
        return _array(cursor, what)
    code = _SCALARS.get(kind)
    if code is None:
        raise BadWeights(f"{what} has the unknown type {kind}", hint=CUT_SHORT)
    scalar = struct.Struct(f"<{code}")
    value: bool | int | float = scalar.unpack(cursor.take(scalar.size, what))[0]
    return value


def _array(cursor: _Cursor, what: str) -> Array:
    kind = cursor.u32(f"the element type of {what}")
    count = cursor.u64(f"the length of {what}")
    if kind == _STRING:
        return Array("string", count, cursor.strings(count, what))
    code = _SCALARS.get(kind)
    if code is None:
        wrong = "arrays" if kind == _ARRAY else f"elements of the unknown type {kind}"
        raise BadWeights(f"{what} holds {wrong}", hint=CUT_SHORT)
    return Array(_NAMES[kind], count, cursor.take(count * struct.calcsize(f"<{code}"), what))


def _alignment(metadata: Mapping[str, Value], types: Mapping[str, str]) -> int:
    value = metadata.get("general.alignment", 32)
    kind = types.get("general.alignment", "uint32")
    if kind != "uint32" or not isinstance(value, int):
        raise BadWeights(f"key general.alignment is a {kind}, not a uint32")
    if not 1 <= value <= MAX_ALIGNMENT or value & (value - 1):
        raise BadWeights(f"key general.alignment is {value}, not a power of two up to {MAX_ALIGNMENT}")
    return value


_Described = tuple[str, TensorType, tuple[int, ...], int]


def _tensor(cursor: _Cursor, number: int) -> _Described:
    name = cursor.text(f"the name of tensor {number}", 63)
    what = f"tensor {name}"
    dimensions = cursor.u32(f"the shape of {what}")
    _bounded(f"{what} has dimensions", dimensions, MAX_DIMENSIONS)
    shape = tuple(cursor.u64(f"the shape of {what}") for _ in range(dimensions))
    kind, offset = _TENSOR_END.unpack(cursor.take(_TENSOR_END.size, f"the description of {what}"))
    elements = 1
    for dimension in shape:
        elements *= dimension
    if not shape or elements == 0 or elements >= 2**63:
        raise BadWeights(f"{what} has the impossible shape {list(shape)}")
    return name, _tensor_type(what, kind, shape[0]), shape, offset


def _tensor_type(what: str, number: int, row: int) -> TensorType:
    kind = BY_NUMBER.get(number)
    if kind is None:
        old = REMOVED.get(number)
        hint = f"llama.cpp no longer reads {old}: use Q4_0" if old else CUT_SHORT
        raise BadWeights(f"{what} has the unknown type {number}", hint=hint)
    if row % kind.block:
        raise BadWeights(f"{what} has rows of {row}, not a multiple of {kind.block} as {kind.name} needs")
    return kind


def _placed(described: list[_Described], data: int, alignment: int, size: int) -> tuple[Tensor, ...]:
    """Return the tensors with their offsets; raise `BadWeights` for data with a gap or an overlap."""
    placed, seen, expected = [], set(), 0
    for name, kind, shape, offset in described:
        if name in seen:
            raise BadWeights(f"there are two tensors {name}")
        seen.add(name)
        tensor = Tensor(name, kind.name, shape, data + offset, _bytes(kind, shape))
        if offset != expected:
            raise BadWeights(f"tensor {name} is at offset {offset} of the data, expected {expected}", hint=CUT_SHORT)
        if tensor.offset + tensor.bytes > size:
            raise BadWeights(
                f"tensor {name} ends at byte {tensor.offset + tensor.bytes}, the file has {size} bytes", hint=CUT_SHORT
            )
        expected = -(-(offset + tensor.bytes) // alignment) * alignment
        placed.append(tensor)
    return tuple(placed)


def _bytes(kind: TensorType, shape: tuple[int, ...]) -> int:
    size = kind.size(shape[0])
    for dimension in shape[1:]:
        size *= dimension
    return size


def _bounded(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise BadWeights(f"{what}: {count}, more than {limit}", hint=CUT_SHORT)
