"""Reads files that lie on this machine: their headers, and the small texts of a registry."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack

from mullama.errors import BadWeights, Unavailable
from mullama.weights.facts import WeightFacts
from mullama.weights.gguf import Read
from mullama.weights.inspect import inspect
from mullama.weights.layers import MAX_TEXT


def look_into(paths: Sequence[str]) -> WeightFacts:
    """The facts of a set of files in order, with metadata and tensors; `BadWeights` names the file."""
    with ExitStack() as files:
        parts = []
        for path in paths:
            descriptor, size = open_regular(path)
            files.callback(os.close, descriptor)
            parts.append((_reader(descriptor), size))
        try:
            return inspect(parts)
        except BadWeights as error:
            raise BadWeights(f"{paths[0]}: {error.message}", hint=error.hint) from error


def open_regular(path: str) -> tuple[int, int]:
    """A descriptor and the size of a regular file; never waits for a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"{path}: {error.strerror}", hint="it was there a moment ago; has another tool moved it?"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise BadWeights(f"{path} is not a regular file")
    return descriptor, found.st_size


def read_text(path: str) -> bytes:
    """A small file, at most `MAX_TEXT` bytes of it."""
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        if size > MAX_TEXT:
            raise BadWeights(f"{path} has {size} bytes, a text may have {MAX_TEXT}")
        return file.read(MAX_TEXT)


def _reader(descriptor: int) -> Read:
    def read(offset: int, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.pread(descriptor, length, offset)
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    return read
