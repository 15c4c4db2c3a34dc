"""Computed prefixes on disk. A file is used only if key, tokens and digest agree.

A file holds a magic line, one JSON line (key, tokens, length, digest), and the state from llama_state_seq_get_data.
A file that does not agree is removed and the prefix is computed again; it is never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_MAGIC = b"mullama prefix 1\n"
_LONGEST_HEADER = 16 * 2**20


class PrefixFiles:
    """The prefixes of one context in one folder; `key` identifies weights, shape and library."""

    def __init__(
        self,
        folder: str,
        key: str,
        *,
        most_bytes: int,
        durable: bool = True,
        valid: Callable[[], bool] = lambda: True,
    ) -> None:
        """most_bytes: of all files in the folder; the least recently used are removed first.

        durable: wait until the disk has a file, so that a computed prefix survives a loss of power.
        valid: returns whether the key still holds for what is computed; no state is written when it does not.
        """
        self._most_bytes, self._durable, self._valid = most_bytes, durable, valid
        self._folder = Path(folder)
        self._key = key

    def load(self, tokens: Sequence[int]) -> bytes | None:
        """Return the state of these tokens, or None; remove a file that fails the check."""
        path = self._path(tokens)
        try:
            with path.open("rb") as file:
                state = self._checked(file.read(len(_MAGIC)), file.readline(_LONGEST_HEADER), tokens)
                data = file.read(state[0] + 1) if state else b""
        except OSError:
            return None
        if state and len(data) == state[0] and hashlib.sha256(data).hexdigest() == state[1]:
            with suppress(OSError):
                os.utime(path)  # mark it as used, see `_make_room`
            return data
        self.discard(tokens)
        return None

    def save(self, tokens: Sequence[int], state: bytes | memoryview) -> None:
        """Write a state that the bound allows. A full or read-only disk is no error: the prefix is computed again."""
        digest = hashlib.sha256(state).hexdigest()
        header = {"key": self._key, "tokens": list(tokens), "length": len(state), "sha256": digest}
        begin = _MAGIC + json.dumps(header).encode() + b"\n"
        path, size = self._path(tokens), len(begin) + len(state)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        if size > self._most_bytes or not self._valid():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(path, size)
            with open(partial, "wb", opener=_private) as file:
                file.write(begin)
                file.write(state)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def discard(self, tokens: Sequence[int]) -> None:
        with suppress(OSError):
            self._path(tokens).unlink(missing_ok=True)

    def _make_room(self, new: Path, size: int) -> None:
        """Bound the size of the folder, with a new file: prefixes of changed prompts are never used again."""
        for partial in self._folder.glob("*.partial"):
            if not _is_alive(partial.suffixes[-2]):
                partial.unlink(missing_ok=True)
        found = [(path.stat(), path) for path in self._folder.glob("*.prefix") if path != new]
        room = self._most_bytes - size
        for status, path in sorted(found, key=lambda entry: entry[0].st_mtime_ns, reverse=True):
            room -= status.st_size
            if room < 0:
                path.unlink(missing_ok=True)

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


def header_of(path: Path) -> tuple[str, list[int]] | None:
    """Return the key and the tokens of a file; None for a file that is none of these."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(_LONGEST_HEADER)) if file.read(len(_MAGIC)) == _MAGIC else None
        return (str(header["key"]), [int(token) for token in header["tokens"]]) if header else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _private(path: str, flags: int) -> int:
    """Open a file that only the user of the server may read: a state shows the text from which it was computed."""
    return os.open(path, flags, 0o600)


def _is_alive(suffix: str) -> bool:
    """Return True if the process that writes a partial file exists. suffix: a dot and its number."""
    try:
        os.kill(int(suffix[1:]), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True
