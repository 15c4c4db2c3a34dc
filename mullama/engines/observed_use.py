"""The most tokens that the requests of a context held at once, kept in a file for the size of the next pool."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_KEPT = 0.75  # share of an older value that counts beside a lower one
_TELLING = 32  # requests; fewer say nothing about a lower use
_GREW = 1.25  # growth that is written at once; less is written when the context closes


class ObservedUse:
    """Observes one context. Contexts over the same weights share the file, which keeps the highest value.

    A lower use replaces a higher one by degrees, because one quiet day says little about the next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = read_use(path)
        self._before = self._written
        self._most = 0
        self._requests = 0

    def note(self, tokens: int) -> None:
        """Record the tokens that requests hold, when one of them ends."""
        self._requests += 1
        if tokens > self._most:
            self._most = tokens
            if tokens > _GREW * self._written:
                self.save()

    def save(self) -> None:
        """Write the value, if it is another one. A file that cannot be written is left as it is."""
        value = max(self._most, int(self._before * (_KEPT if self._requests >= _TELLING else 1)))
        if value == self._written:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(str(value), encoding="ascii")
            part.replace(self._path)
            self._written = value


def use_path(folder: Path, digest: str) -> Path:
    """Return the file of the weights with this digest, in the folder of an instance."""
    return folder / f"{digest.removeprefix('sha256:')[:32]}.use"


def read_use(path: Path) -> int:
    """Return the value in a file, 0 without one."""
    try:
        return max(0, int(path.read_text(encoding="ascii")[:20]))
    except (OSError, ValueError):
        return 0
