"""Reads files of this machine: headers, digests, and the small texts of a registry."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from mullama import units
from mullama.errors import BadWeights, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.sources.base import Cancelled, DownloadProgress, Report
from mullama.weights.adapters import misfit
from mullama.weights.choose import header_role
from mullama.weights.facts import WeightFacts
from mullama.weights.gguf import Array, Read, read_header
from mullama.weights.imatrix import ImportanceMatrix, read_imatrix
from mullama.weights.inspect import inspect
from mullama.weights.registry_manifest import MAX_TEXT
from mullama.weights.vocabulary import TOKENS

_READ: Final = 4 * 1024**2


def look_into(paths: Sequence[str]) -> WeightFacts:
    """Return the facts of an ordered set of files, with metadata and tensors; raise `BadWeights` with the file."""
    with ExitStack() as files:
        parts = []
        for path in paths:
            descriptor, size = open_regular(path)
            files.callback(os.close, descriptor)
            parts.append((_reader(descriptor, path), size))
        try:
            return inspect(parts)
        except BadWeights as error:
            raise BadWeights(f"{paths[0]}: {error.message}", hint=error.hint) from error


def file_role(path: str) -> str:
    """Return the role of a GGUF file by its header, see `header_role`; "weights" for one that cannot be read."""
    try:
        descriptor, size = open_regular(path)
    except MullamaError:
        return "weights"
    try:
        header = read_header(_reader(descriptor, path), size)
    except MullamaError:
        return "weights"  # the check of the chosen file reports the error
    finally:
        os.close(descriptor)
    kind = header.metadata.get("general.type", "model")
    return header_role(str(header.metadata.get("general.architecture", "")), str(kind), len(header.tensors))


def token_texts(path: str) -> Sequence[bytes]:
    """Return the texts of the tokens in the header of a file; raise `BadWeights` for one without."""
    descriptor, size = open_regular(path)
    try:
        texts = read_header(_reader(descriptor, path), size).metadata.get(TOKENS)
    finally:
        os.close(descriptor)
    if not isinstance(texts, Array) or texts.kind != "string":
        raise BadWeights(f"{path} has no vocabulary")
    return texts.strings()


def check_adapter(path: str, weights: tuple[str, ...], base: WeightFacts | None) -> None:
    """Raise `BadWeights` for a file that is no adapter of these weights. base: None for weights without a header.

    weights: the files of the weights, none for a script. llama.cpp compares the shapes too, but does not report the
    names of both files.
    """
    if not os.path.exists(path):
        raise NotFound(f"the adapter {path} does not exist", name=path)
    facts = look_into((path,))
    if facts.role != "adapter":
        raise BadWeights(f"{path} is not an adapter: it contains a {facts.role}")
    if base is not None and facts.architecture != base.architecture:
        raise BadWeights(f"the adapter {path} is for {facts.architecture}, the weights are {base.architecture}")
    if facts.metadata.get("adapter.alora.invocation_tokens"):
        raise BadWeights(
            f"{path} is an activated LoRA (adapter.alora.invocation_tokens), which is not supported: it applies from "
            "its invocation on, and the scales of a request apply to all of its tokens",
            hint="use a plain LoRA adapter",
        )
    if weights and (reason := misfit(facts.tensors, look_into(weights).tensors)):
        raise BadWeights(
            f"the adapter {path} does not fit {weights[0]}: {reason}", hint="it was made for other weights"
        )


def read_importance(path: str) -> ImportanceMatrix:
    """Return the importance matrix of a file; raise `BadWeights` with the path."""
    descriptor, size = open_regular(path)
    try:
        return read_imatrix(_reader(descriptor, path), size)
    except BadWeights as error:
        raise BadWeights(f"{path}: {error.message}", hint=error.hint) from error
    finally:
        os.close(descriptor)


def open_regular(path: str) -> tuple[int, int]:
    """Return a descriptor and the size of a regular file; raise for anything else, without a wait for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"{path}: {error.strerror}", hint="it existed a moment ago: another tool may have moved it"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise BadWeights(f"{path} is not a regular file")
    return descriptor, found.st_size


def regular_size(path: str) -> int:
    """Return the size of a regular file; raise for anything else."""
    descriptor, size = open_regular(path)
    os.close(descriptor)
    return size


def read_text(path: str) -> bytes:
    """Return the content of a file of at most `MAX_TEXT` bytes; raise `BadWeights` for a larger one."""
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        if size > MAX_TEXT:
            raise BadWeights(f"{path} is larger than {units.size(MAX_TEXT)}")
        return file.read(MAX_TEXT)


def hashed(path: str, name: str, report: Report, cancelled: Cancelled) -> str:
    """Read a file and return its digest."""
    digest, done, reported, size = hashlib.sha256(), 0, 0.0, regular_size(path)
    for piece in blocks(path, cancelled):
        digest.update(piece)
        done += len(piece)
        if time.monotonic() - reported > 0.1:
            reported = time.monotonic()
            report(DownloadProgress(file=name, phase="verifying", completed=done, total=size))
    return f"sha256:{digest.hexdigest()}"


def blocks(path: str, cancelled: Cancelled) -> Iterator[bytes]:
    """Yield the content of a file; raise `TransferFailed` after a cancellation, `Unavailable` for a failed read."""
    descriptor, _ = open_regular(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while piece := _read_block(file, path):
            if cancelled():
                raise TransferFailed(f"reading {path} was cancelled")
            yield piece


def _read_block(file: io.FileIO, path: str) -> bytes:
    try:
        return file.read(_READ) or b""
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", hint="check the file and its disk") from error


def _pread(descriptor: int, length: int, offset: int, path: str) -> bytes:
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", hint="check the file and its disk") from error


def _reader(descriptor: int, path: str) -> Read:
    def read(offset: int, length: int) -> bytes:
        pieces = []
        while length:
            piece = _pread(descriptor, length, offset, path)
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    return read
