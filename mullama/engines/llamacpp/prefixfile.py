"""Computed prefixes on disk: written beside what they depend on, read only when all of it agrees.

A file holds a magic line, one JSON line (key, tokens, length, digest), and the state that llama.cpp gave. Anything
that does not fit makes the file worthless, never an error: the prefix is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_MAGIC = b"mullama prefix 1\n"
_LONGEST_HEADER = 16 * 2**20


class PrefixFiles:
    """The prefixes of one context in one folder; `key` names weights, shape and library."""

    def __init__(self, folder: str, key: str) -> None:
        self._folder = Path(folder)
        self._key = key

    def load(self, tokens: Sequence[int]) -> bytes | None:
        """The state of these tokens, or None; a file that fails the check is removed."""
        path = self._path(tokens)
        try:
            with path.open("rb") as file:
                state = self._checked(file.read(len(_MAGIC)), file.readline(_LONGEST_HEADER), tokens)
                data = file.read(state[0] + 1) if state else b""
        except OSError:
            return None
        if state and len(data) == state[0] and hashlib.sha256(data).hexdigest() == state[1]:
            return data
        self.discard(tokens)
        return None

    def save(self, tokens: Sequence[int], state: bytes) -> None:
        """Keep a state; a full or read-only disk costs only the next start's time."""
        digest = hashlib.sha256(state).hexdigest()
        header = {"key": self._key, "tokens": list(tokens), "length": len(state), "sha256": digest}
        path = self._path(tokens)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(_MAGIC + json.dumps(header).encode() + b"\n")
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def discard(self, tokens: Sequence[int]) -> None:
        with suppress(OSError):
            self._path(tokens).unlink(missing_ok=True)

    def _path(self, tokens: Sequence[int]) -> Path:
        content = json.dumps([self._key, list(tokens)]).encode()
        return self._folder / f"{hashlib.sha256(content).hexdigest()[:32]}.prefix"

    def _checked(self, magic: bytes, line: bytes, tokens: Sequence[int]) -> tuple[int, str] | None:
        if magic != _MAGIC:
            return None
        try:
            header = json.loads(line)
            matches = header["key"] == self._key and header["tokens"] == list(tokens)
            return (int(header["length"]), str(header["sha256"])) if matches else None
        except (ValueError, KeyError, TypeError):
            return None
