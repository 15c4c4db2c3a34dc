"""Writes a GGUF file in another quantisation."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np

from mullama.engines.llamacpp.binding.context import Floats
from mullama.engines.llamacpp.binding.library import log, start
from mullama.errors import EngineFailed, Invalid
from mullama.weights.imatrix import ImportanceEntry, ImportanceMatrix, read_imatrix

_PREFIX = "LLAMA_FTYPE_"
_LONGEST_TEXT = 127  # bytes of a text in the library's overrides of keys


def file_types() -> dict[str, int]:
    """Return the quantisations that the library writes: names such as Q4_K_M, and their numbers."""
    found = {}
    for constant in dir(c):
        name = constant.removeprefix(_PREFIX).removeprefix("MOSTLY_").removeprefix("ALL_")
        if constant.startswith(_PREFIX) and not name.startswith("GUESSED"):
            found[name] = int(getattr(c, constant))
    return found


def quantize(source: str, target: str, kind: str, *, again: bool, threads: int, imatrix: str | None) -> None:
    """Write `target` from `source`. `again` allows weights that are quantised already; 0 threads mean all cores.

    imatrix: the path of an importance matrix, which the file names in its metadata.
    """
    start()
    types = file_types()
    if kind.upper() not in types:
        raise Invalid(f"{kind!r} is not a quantization", hint=f"one of {', '.join(sorted(types))}")
    parameters = c.llama_model_quantize_default_params()
    parameters.ftype = types[kind.upper()]
    parameters.allow_requantize = again
    parameters.nthread = threads
    values: list[Floats] = []  # referred to by `parameters` until the end
    if imatrix is not None:
        matrix = _read_matrix(imatrix)
        values = [_weights(entry) for entry in matrix.entries.values()]
        parameters.imatrix = _importance(list(matrix.entries), values)
        parameters.kv_overrides = _noted(imatrix, matrix)
    with log.recording() as lines:
        code = c.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if code != 0 and any("requires an imatrix" in line or "importance matrix" in line for line in lines):
        lacking = "values for tensors that the importance matrix does not have" if imatrix else "an importance matrix"
        raise Invalid(
            f"{kind} needs {lacking}", hint="--imatrix FILE names an importance matrix, which llama-imatrix writes"
        )
    if code != 0:
        raise EngineFailed(f"llama.cpp could not quantize {source} to {kind}", report="\n".join(lines[-10:]))


def _read_matrix(path: str) -> ImportanceMatrix:
    with open(path, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return read_imatrix(read, os.fstat(file.fileno()).st_size)


def _weights(entry: ImportanceEntry) -> Floats:
    """Return the weights of a tensor's columns, as llama.cpp's quantize tool does.

    The sums are divided by their counts, and an expert without data weighs 1.
    """
    sums = np.frombuffer(entry.sums, "<f4").reshape(len(entry.counts), -1)
    counts = np.rint(np.array(entry.counts, np.float32))[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.float32(1)).astype(np.float32).ravel()


def _importance(names: list[str], values: list[Floats]) -> Any:
    """Return the library's array of weights, which a null name ends."""
    entries = (c.llama_model_imatrix_data * (len(names) + 1))()
    for place, name, weights in zip(entries, names, values, strict=False):
        place.name = name.encode()
        place.data = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        place.size = weights.size
    return entries


def _noted(path: str, matrix: ImportanceMatrix) -> Any:
    """Return the keys that name the importance matrix in the file, with an empty key at the end."""
    texts = {"file": os.path.basename(path), **({"dataset": matrix.datasets[0]} if matrix.datasets else {})}
    numbers = {"entries_count": len(matrix.entries), **({"chunks_count": matrix.chunks} if matrix.chunks else {})}
    noted = (c.llama_model_kv_override * (len(texts) + len(numbers) + 1))()
    for place, (key, value) in zip(noted, {**texts, **numbers}.items(), strict=False):
        place.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, str):
            place.tag = c.LLAMA_KV_OVERRIDE_TYPE_STR
            place.value.val_str = value.encode()[:_LONGEST_TEXT]
        else:
            place.tag = c.LLAMA_KV_OVERRIDE_TYPE_INT
            place.value.val_i64 = value
    return noted
