"""Reads importance matrices: GGUF files, and the older `.dat` form, of llama.cpp's `llama-imatrix`.

Both hold, for each tensor, the sums of the squared activations of its columns, and over how many steps they were added.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mullama.errors import BadWeights, Invalid
from mullama.struct import Struct
from mullama.weights.gguf import Array, Read, read_header
from mullama.weights.tensors import Tensor

_MAGIC: Final = b"GGUF"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_I32 = struct.Struct("<i")
_MAX_ENTRIES: Final = 65_536
_MAX_NAME: Final = 4096
_DAMAGED: Final = "the file is cut short or damaged, or is not an importance matrix"
# A model may read the table of its token embeddings by row, so the quantisation does not weigh its columns.
_UNWEIGHED: Final = ("token_embd.weight", "per_layer_token_embd.weight")


class ImportanceEntry(Struct, frozen=True, kw_only=True):
    """The weights of one tensor, as stored. sums: float32, little endian, one for each column and expert.

    counts: the divisors, one for each expert; a count of 0 has no data.
    """

    sums: bytes
    counts: tuple[float, ...]

    @property
    def length(self) -> int:
        """Number of values."""
        return len(self.sums) // 4


class ImportanceMatrix(Struct, frozen=True, kw_only=True):
    """An importance matrix by the names of tensors. chunks: pieces of text that it was computed on, 0 if unknown."""

    entries: Mapping[str, ImportanceEntry]
    datasets: tuple[str, ...] = ()
    chunks: int = 0


def read_imatrix(read: Read, size: int) -> ImportanceMatrix:
    """Return the matrix of a file of `size` bytes; raise `BadWeights` for a damaged one."""
    return _gguf(read, size) if read(0, min(4, size)) == _MAGIC else _legacy(read, size)


def _gguf(read: Read, size: int) -> ImportanceMatrix:
    header = read_header(read, size)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = sorted({name.removesuffix(end) for name in tensors for end in (_SUMS, _COUNTS) if name.endswith(end)})
    entries = {}
    for name in names:
        sums, counts = tensors.get(name + _SUMS), tensors.get(name + _COUNTS)
        if sums is None or counts is None or (sums.type, counts.type) != ("F32", "F32") or not counts.elements:
            raise BadWeights(f"the sums and counts of {name} do not fit together", hint=_DAMAGED)
        if sums.elements % counts.elements:
            raise BadWeights(f"{name} has {sums.elements} sums for {counts.elements} counts", hint=_DAMAGED)
        divisors = struct.unpack(f"<{counts.elements}f", read(counts.offset, 4 * counts.elements))
        entries[name] = ImportanceEntry(sums=read(sums.offset, 4 * sums.elements), counts=divisors)
    if not entries:
        raise BadWeights("the file has no importance matrix", hint="llama-imatrix writes one")
    datasets, chunks = header.metadata.get("imatrix.datasets"), header.metadata.get("imatrix.chunk_count", 0)
    named = datasets.strings() if isinstance(datasets, Array) and datasets.kind == "string" else []
    return ImportanceMatrix(
        entries=entries, datasets=tuple(name.decode("utf-8", "replace") for name in named),
        chunks=chunks if isinstance(chunks, int) else 0,
    )  # fmt: skip


def _legacy(read: Read, size: int) -> ImportanceMatrix:
    """Read the count of entries; for each its name, its calls and its values; then the chunks and the dataset."""
    position = 0

    def take(length: int) -> bytes:
        nonlocal position
        if not 0 <= length <= size - position:
            raise BadWeights("the importance matrix cannot be read", hint=_DAMAGED)
        position += length
        return read(position - length, length)

    def number(most: int) -> int:
        value = int(_I32.unpack(take(4))[0])
        if not 0 <= value <= most:
            raise BadWeights("the importance matrix cannot be read", hint=_DAMAGED)
        return value

    entries = {}
    for _ in range(number(_MAX_ENTRIES) or -1):
        name = take(number(_MAX_NAME)).decode("utf-8", "replace")
        calls = number(2**31 - 1)
        entries[name] = ImportanceEntry(sums=take(4 * number(size // 4)), counts=(float(calls or 1),))
    if not entries:
        raise BadWeights("the file has no importance matrix", hint=_DAMAGED)
    chunks = number(2**31 - 1) if size - position >= 4 else 0
    dataset = take(number(_MAX_NAME)).decode("utf-8", "replace") if size - position >= 4 else ""
    return ImportanceMatrix(entries=entries, datasets=(dataset,) if dataset else (), chunks=chunks)


def check_imatrix(matrix: ImportanceMatrix, tensors: Sequence[Tensor], model: str) -> None:
    """Raise `Invalid` unless each entry is of a tensor of the model and has a value for each of its columns."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    if problems := list(_mismatches(matrix, shapes)):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Invalid(
            f"the importance matrix is not of {model}: {problems[0]}{more}",
            hint="use the matrix that was computed with this model",
        )


def _mismatches(matrix: ImportanceMatrix, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name, entry in matrix.entries.items():
        shape = shapes.get(name)
        if name in _UNWEIGHED:
            continue
        if shape is None:
            yield f"it has values for {name}, which the model does not have"
            continue
        wanted = shape[0] * (shape[2] if len(shape) > 2 else 1)
        if entry.length != wanted:
            yield f"{name} has {entry.length} values, and the model's tensor needs {wanted}"
