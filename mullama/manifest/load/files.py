"""Reads the files of a manifest within limits, and records the digest of each."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from mullama.errors import Denied, Invalid, MullamaError, NotFound
from mullama.manifest.load.document import MOST_BYTES
from mullama.names import LOCK_NAME
from mullama.struct import Struct
from mullama.units import size

MOST_FRAGMENTS = 256
MOST_NAMES = 10_000
MOST_LOCK_BYTES = 16 * 1024**2
_MAGIC = "*?["


class FileSystem(Protocol):
    """A source of files: the disk, or a commit of a repository. Paths are absolute."""

    def read(self, path: str, most: int = MOST_BYTES) -> bytes:
        """Return the content of a file; raise `NotFound`, `Denied` or `Invalid` if it cannot be read.

        most: its size in bytes; larger files of the disk are refused.
        """
        ...

    def names(self, folder: str) -> Sequence[str]:
        """Return the names in a folder; raise `NotFound` for a missing folder."""
        ...


class Disk:
    """Regular files, of at most 1 MiB unless stated. Pipes, devices and folders are refused without blocking."""

    def read(self, path: str, most: int = MOST_BYTES) -> bytes:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise Invalid(f"{path} is not a regular file", hint="a manifest must be a regular file")
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise _refusal(error, path) from error
        with open(descriptor, "rb") as file:
            # Checked again: the path may lead to another file now.
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid(f"{path} is not a regular file")
            try:
                data = file.read(most + 1)
            except OSError as error:  # of a damaged disk, or a file of /proc
                raise _refusal(error, path) from error
        if data.startswith(b"GGUF"):
            raise Invalid(f"{path} holds weights, not a text", hint="name it as a model: mullama run ./FILE.gguf")
        if len(data) > most:
            raise Invalid(f"{path} is larger than {size(most)}", hint="split it with include")
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
            return Denied(f"{path} is not readable", hint="check its owner and mode", authenticated=True)
        case _:
            return Invalid(f"{path} cannot be read: {error.strerror}")


class FileRead(Struct, frozen=True, kw_only=True):
    """A file of the manifest: its absolute path, and the SHA-256 of its content in hex."""

    path: str
    sha256: str


class Reading:
    """One load of a manifest: the files that it read, and the folders of its documents."""

    def __init__(self, files: FileSystem, env: Mapping[str, str]) -> None:
        self.env = env
        self._files = files
        self._digests: dict[str, str] = {}
        self._texts: dict[str, str | MullamaError] = {}
        self._folders: dict[str, str] = {}
        self._watched: set[str] = set()
        self._left = MOST_NAMES

    def register_remote(self, name: str, data: bytes) -> None:
        """Record a remote document, which can name no path of this machine."""
        self._folders[name] = ""
        self._digests[name] = hashlib.sha256(data).hexdigest()

    def lock(self, document: str) -> bytes | None:
        """Return the content of the lock file next to a document; None if there is none."""
        try:
            return self.read(self.absolute(LOCK_NAME, document), MOST_LOCK_BYTES)
        except NotFound:
            return None

    def register(self, name: str, folder: str) -> None:
        """Set the folder to which paths in the document `name` are relative."""
        self._folders[name] = folder
        self._watched.add(folder)

    def note(self, path: str, data: bytes) -> None:
        """Record a file whose content another source provided."""
        self._digests[path] = hashlib.sha256(data).hexdigest()
        self._watched.add(os.path.dirname(path))

    def read(self, path: str, most: int = MOST_BYTES) -> bytes:
        # A missing or unreadable file is recorded too: it may appear later.
        self._watched.add(os.path.dirname(path))
        data = self._files.read(path, most)
        self._digests[path] = hashlib.sha256(data).hexdigest()
        return data

    def text(self, path: str) -> str:
        """Return the text of a template file, which is read once for all models."""
        if path not in self._texts:
            try:
                self._texts[path] = _decode(self.read(path), path)
            except MullamaError as error:
                self._texts[path] = error
        found = self._texts[path]
        if isinstance(found, MullamaError):
            raise found
        return found

    def absolute(self, path: str, document: str) -> str:
        if not (folder := self._folders[document]):
            raise Invalid(
                f"{path[:80]} is a file of this machine, which a remote file cannot name",
                hint="name a source of a hub, or declare it in the manifest",
            )
        if path == "~" or path.startswith("~/"):
            if not (home := self.env.get("HOME")):
                raise Invalid(f"{path} needs HOME to be set")
            path = home + path[1:]
        elif path.startswith("~"):
            raise Invalid(f"{path[:80]} is the home of another user", hint="write the absolute path")
        return os.path.normpath(os.path.join(folder, path))

    def matches(self, pattern: str, document: str) -> list[str]:
        """Return the sorted absolute paths that match an include pattern."""
        if "://" in pattern:
            raise Invalid(
                f"{pattern[:120]!r} is neither a file of this machine nor one of a hub",
                hint="a path, or hf:org/repo/file.yaml@revision",
            )
        whole = self.absolute(pattern, document)
        if not any(c in pattern for c in _MAGIC):
            return [whole]
        parts = whole.split("/")
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
        return sorted(self._glob("/".join(parts[:first]) or "/", parts[first:]))

    def _glob(self, folder: str, parts: Sequence[str]) -> Iterator[str]:
        """Return the matching files below `folder`; hidden names only match a pattern that begins with a dot."""
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
            raise Invalid(f"the pattern searches more than {MOST_NAMES:,} names", hint="write the name of the folder")
        return names

    @property
    def files(self) -> tuple[FileRead, ...]:
        local = {path: sha for path, sha in self._digests.items() if os.path.isabs(path)}
        return tuple(FileRead(path=path, sha256=sha) for path, sha in sorted(local.items()))

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the folders of the files that were read or searched, and of the patterns."""
        return tuple(sorted(self._watched))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all paths and digests in hex."""
        lines = "".join(f"{sha} {path}\n" for path, sha in sorted(self._digests.items()))
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8", hint="save it as UTF-8") from error
