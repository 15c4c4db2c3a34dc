"""The files that a manifest is made of, read within bounds, each with the digest of its bytes."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mullama.errors import Denied, Invalid, MullamaError, NotFound
from mullama.manifest.load.document import MOST_BYTES
from mullama.units import size

MOST_FRAGMENTS = 256
MOST_NAMES = 10_000
_MAGIC = "*?["


class FileSystem(Protocol):
    """Where the files are: the disk, or a revision of a repository. Paths are absolute."""

    def read(self, path: str) -> bytes:
        """The whole file; `NotFound`, `Denied` or `Invalid` where it cannot be read."""
        ...

    def names(self, folder: str) -> Sequence[str]:
        """The names in a folder; `NotFound` when there is no such folder."""
        ...


class Disk:
    """Regular files of at most 1 MiB; a pipe, a device or a folder is refused and never waited for."""

    def read(self, path: str) -> bytes:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Invalid(f"{path} is not a regular file", hint="a manifest is read from a plain file")
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise _refusal(error, path) from error
        with open(descriptor, "rb") as file:
            # Looked at again: the path may lead elsewhere by now.
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid(f"{path} is not a regular file")
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Invalid(f"{path} is larger than {size(MOST_BYTES)}", hint="split it with include")
        return data

    def names(self, folder: str) -> Sequence[str]:
        try:
            return os.listdir(folder)
        except OSError as error:
            raise _refusal(error, folder) from error


def _refusal(error: OSError, path: str) -> MullamaError:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return NotFound(f"{path} does not exist", name=path)
        case PermissionError():
            return Denied(f"{path} may not be read", hint="check its owner and mode", authenticated=True)
        case _:
            return Invalid(f"{path} cannot be read: {error.strerror}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRead:
    """A file that the manifest depends on, by its absolute path, with the SHA-256 of its bytes in hex."""

    path: str
    sha256: str


class Reading:
    """One reading of a manifest: which files it read, and where the folders of its documents are."""

    def __init__(self, files: FileSystem, env: Mapping[str, str]) -> None:
        self.env = env
        self._files = files
        self._digests: dict[str, str] = {}
        self._texts: dict[str, str | MullamaError] = {}
        self._folders: dict[str, str] = {}
        self._watched: set[str] = set()
        self._left = MOST_NAMES

    def register(self, name: str, folder: str) -> None:
        """Paths in the document called `name` are relative to `folder`."""
        self._folders[name] = folder
        self._watched.add(folder)

    def note(self, path: str, data: bytes) -> None:
        """Count bytes as read although they came from elsewhere."""
        self._digests[path] = hashlib.sha256(data).hexdigest()
        self._watched.add(os.path.dirname(path))

    def read(self, path: str) -> bytes:
        # A file that is missing or unreadable is watched too: it may come.
        self._watched.add(os.path.dirname(path))
        data = self._files.read(path)
        self._digests[path] = hashlib.sha256(data).hexdigest()
        return data

    def text(self, path: str) -> str:
        """A template's text, read once however many models share it."""
        if path not in self._texts:
            try:
                self._texts[path] = _decode(self.read(path), path)
            except MullamaError as error:
                self._texts[path] = error
        found = self._texts[path]
        if isinstance(found, MullamaError):
            raise found
        return found

    def absolute(self, path: str, beside: str) -> str:
        if path == "~" or path.startswith("~/"):
            if not (home := self.env.get("HOME")):
                raise Invalid(f"{path} needs HOME to be set")
            path = home + path[1:]
        elif path.startswith("~"):
            raise Invalid(f"{path[:80]} names another user's home", hint="write the whole path")
        return os.path.normpath(os.path.join(self._folders[beside], path))

    def matches(self, pattern: str, beside: str) -> list[str]:
        """The absolute paths that an include pattern names, sorted; empty when nothing matches."""
        whole = self.absolute(pattern, beside)
        if not any(c in pattern for c in _MAGIC):
            return [whole]
        parts = whole.split("/")
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
        return sorted(self._glob("/".join(parts[:first]) or "/", parts[first:]))

    def _glob(self, folder: str, parts: Sequence[str]) -> Iterator[str]:
        """The files under `folder` that match; names that begin with a dot only where the pattern does."""
        self._watched.add(folder)
        part, rest = parts[0], parts[1:]
        for name in self._listed(folder):
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                path = os.path.join(folder, name)
                yield from self._glob(path, rest) if rest else (path,)

    def _listed(self, folder: str) -> Sequence[str]:
        try:
            names = self._files.names(folder)
        except NotFound:
            return ()
        self._left -= len(names) + 1
        if self._left < 0:
            raise Invalid(f"the pattern looks at more than {MOST_NAMES:,} names", hint="name the folder")
        return names

    @property
    def files(self) -> tuple[FileRead, ...]:
        return tuple(FileRead(path=path, sha256=sha) for path, sha in sorted(self._digests.items()))

    @property
    def folders(self) -> tuple[str, ...]:
        """Where a change may matter: of every file that was read or looked for, and of every pattern."""
        return tuple(sorted(self._watched))

    @property
    def digest(self) -> str:
        """SHA-256 over every path and digest, in hex."""
        lines = "".join(f"{file.sha256} {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8", hint="save it as UTF-8") from error
