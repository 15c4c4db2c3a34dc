"""Importance matrices: both forms of files, damage, and whether they are of a model."""

from __future__ import annotations

import struct

import pytest

from mullama.errors import BadWeights, Invalid
from mullama.weights.gguf import Read
from mullama.weights.imatrix import ImportanceEntry, ImportanceMatrix, check_imatrix, read_imatrix
from mullama.weights.tensors import Tensor
from tests import ggufs


def legacy(entries: dict[str, tuple[int, list[float]]], *, chunks: int | None = None, dataset: str = "") -> bytes:
    """Return a file of the older form: for each tensor (calls, values)."""
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        text = name.encode()
        data += struct.pack("<i", len(text)) + text + struct.pack("<ii", calls, len(values))
        data += struct.pack(f"<{len(values)}f", *values)
    if chunks is not None:
        data += struct.pack("<ii", chunks, len(dataset)) + dataset.encode()
    return data


def gguf(entries: dict[str, tuple[list[float], list[float]]]) -> bytes:
    """Return a GGUF file: for each tensor (counts, sums)."""
    tensors = {}
    for name, (counts, sums) in entries.items():
        shape = (len(sums) // len(counts), len(counts))
        tensors[f"{name}.in_sum2"] = ggufs.Stored(shape, data=struct.pack(f"<{len(sums)}f", *sums))
        tensors[f"{name}.counts"] = ggufs.Stored((1, len(counts)), data=struct.pack(f"<{len(counts)}f", *counts))
    keys = {
        "general.type": ggufs.string("imatrix"),
        "imatrix.datasets": ggufs.texts(["wiki.txt"]),
        "imatrix.chunk_count": ggufs.u32(7),
        "imatrix.chunk_size": ggufs.u32(512),
    }
    return ggufs.File(keys=keys, tensors=tensors).bytes()


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def matrix_of(data: bytes) -> ImportanceMatrix:
    return read_imatrix(reader(data), len(data))


def entry(sums: list[float], counts: tuple[float, ...]) -> ImportanceEntry:
    return ImportanceEntry(sums=struct.pack(f"<{len(sums)}f", *sums), counts=counts)


def test_a_gguf_file_has_sums_and_counts_by_tensor() -> None:
    found = matrix_of(gguf({"a": ([2.0], [1.0, 2.0, 3.0, 4.0]), "b": ([3.0, 0.0], [9.0, 6.0, 0.0, 0.0])}))
    assert found == ImportanceMatrix(
        entries={"a": entry([1, 2, 3, 4], (2.0,)), "b": entry([9, 6, 0, 0], (3.0, 0.0))},
        datasets=("wiki.txt",), chunks=7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("chunks", "dataset", "datasets"), [(None, "", ()), (5, "", ()), (5, "calibration.txt", ("calibration.txt",))]
)
def test_the_older_form_has_values_and_calls(chunks: int | None, dataset: str, datasets: tuple[str, ...]) -> None:
    found = matrix_of(legacy({"a": (2, [1.0, 2.0]), "b": (0, [3.0])}, chunks=chunks, dataset=dataset))
    assert found == ImportanceMatrix(
        entries={"a": entry([1, 2], (2.0,)), "b": entry([3], (1.0,))}, datasets=datasets, chunks=chunks or 0
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\xff" * 64,
        struct.pack("<i", 0),
        legacy({"a": (1, [1.0, 2.0])})[:-1],
        legacy({"a": (1, [1.0])}) + b"\x01\x00\x00\x00\xff\xff\xff\x7f",
        gguf({"a": ([1.0], [1.0] * 8)})[:-64],
        ggufs.File(keys={}, tensors={"a.in_sum2": ggufs.Stored((4,))}).bytes(),
        ggufs.File(keys={}, tensors={"a": ggufs.Stored((4,))}).bytes(),
    ],
)
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadWeights):
        matrix_of(data)


def tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, type="F16", shape=shape, offset=0, bytes=0)


TENSORS = (tensor("blk.0.w", 4, 8), tensor("blk.0.experts", 4, 8, 3), tensor("token_embd.weight", 4, 32))


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [
        ({"blk.0.w": 4, "blk.0.experts": 12, "token_embd.weight": 9}, ""),
        ({"blk.0.w": 5}, "blk.0.w has 5 values, and the model's tensor needs 4"),
        ({"blk.0.experts": 4}, "blk.0.experts has 4 values, and the model's tensor needs 12"),
        ({"blk.9.w": 4}, "it has values for blk.9.w, which the model does not have"),
        ({"blk.9.w": 4, "blk.0.w": 5}, r"blk.9.w, which the model does not have \(and 1 more\)"),
    ],
)
def test_a_matrix_of_another_model_is_refused_by_the_name_of_the_tensor(lengths: dict[str, int], problem: str) -> None:
    matrix = ImportanceMatrix(entries={name: entry([1.0] * count, (1.0,)) for name, count in lengths.items()})
    if not problem:
        check_imatrix(matrix, TENSORS, "m.gguf")
        return
    with pytest.raises(Invalid, match=problem):
        check_imatrix(matrix, TENSORS, "m.gguf")
