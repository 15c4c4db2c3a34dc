"""Writes a GGUF file in another quantisation."""

from __future__ import annotations

import ctypes
import os

import llama_cpp.llama_cpp as c

from mullama.engines.llamacpp.binding.library import log, start
from mullama.errors import EngineFailed, Invalid

_PREFIX = "LLAMA_FTYPE_"


def file_types() -> dict[str, int]:
    """Return the quantisations that the library writes: names such as Q4_K_M, and their numbers."""
    found = {}
    for constant in dir(c):
        name = constant.removeprefix(_PREFIX).removeprefix("MOSTLY_").removeprefix("ALL_")
        if constant.startswith(_PREFIX) and not name.startswith("GUESSED"):
            found[name] = int(getattr(c, constant))
    return found


def quantize(source: str, target: str, kind: str, *, again: bool, threads: int) -> None:
    """Write `target` from `source`. `again` allows weights that are quantised already; 0 threads mean all cores."""
    start()
    types = file_types()
    if kind.upper() not in types:
        raise Invalid(f"{kind!r} is not a quantization", hint=f"one of {', '.join(sorted(types))}")
    parameters = c.llama_model_quantize_default_params()
    parameters.ftype = types[kind.upper()]
    parameters.allow_requantize = again
    parameters.nthread = threads
    with log.recording() as lines:
        code = c.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if code != 0:
        raise EngineFailed(f"llama.cpp could not quantize {source} to {kind}", report="\n".join(lines[-10:]))
