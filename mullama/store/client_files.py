"""The configuration files of clients: read, written whole or not at all, and recorded so that each edit can be undone.

A record has the bytes of a file before an apply and the digest of those after it. It is written before the files, so
an apply that is interrupted can be undone. Records may hold other people's secrets, as the files do: the folder of the
state is for its user alone.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mullama.codec import from_json, to_tree
from mullama.errors import Conflict, Invalid, TooLarge
from mullama.store.disk import sync_folder, write_atomic
from mullama.struct import Struct, field
from mullama.units import size

MOST_BYTES = 8 * 1024**2
"""The size of the largest file that is edited."""


class EditedFile(Struct, frozen=True, kw_only=True):
    """One file of an apply."""

    client: str
    path: str
    """As the client names it; a link is followed."""
    before: bytes | None
    """None for a file that the apply made."""
    after: str
    """SHA-256 of the written bytes, in hex."""
    values: dict[str, Any] = field(default_factory=dict)
    """The value of each field that the apply has set."""
    folders: tuple[str, ...] = ()
    """The folders that it made, the outermost first."""


class ClientRecord(Struct, frozen=True, kw_only=True):
    """One apply of client files."""

    number: int
    manifest: str | None
    """Absolute path of the manifest."""
    when: float
    """Unix time."""
    files: tuple[EditedFile, ...]


class ClientRecords:
    """The records of one instance, oldest first. The caller holds the lock of the instance for a change."""

    def __init__(self, folder: Path) -> None:
        """folder: the state folder of the instance."""
        self._folder = folder / "clients"

    def all(self) -> tuple[ClientRecord, ...]:
        """Return the records, oldest first; raise `Invalid` for a damaged one."""
        return tuple(map(self._read, sorted(self._folder.glob("*.json"))))

    def of(self, manifest: str | None) -> tuple[ClientRecord, ...]:
        """Return the records of one manifest, newest first."""
        return tuple(record for record in reversed(self.all()) if record.manifest == manifest)

    def add(self, manifest: str | None, when: float, files: Sequence[EditedFile]) -> ClientRecord:
        """Write the record of an apply and return it."""
        last = max((int(path.stem) for path in self._folder.glob("*.json")), default=0)
        record = ClientRecord(number=last + 1, manifest=manifest, when=when, files=tuple(files))
        self.save(record)
        return record

    def save(self, record: ClientRecord) -> None:
        """Write a record anew; remove one without files."""
        import json

        path = self._folder / f"{record.number:08}.json"
        if record.files:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, json.dumps(to_tree(record)).encode())
        else:
            path.unlink(missing_ok=True)

    def values(self) -> dict[str, Mapping[str, Any]]:
        """Return the fields that the last apply of each file has set, by the path of the file."""
        return {file.path: file.values for record in self.all() for file in record.files}

    def base_of(self, path: str, present: bytes | None) -> bytes | None:
        """Return a file as it was before all applies, empty for one that an apply made.

        None if there was no apply, or if something else has changed the file since or in between.
        """
        base: bytes | None = None
        expected = present
        for file in [file for record in reversed(self.all()) for file in record.files if file.path == path]:
            if expected is None or digest_of(expected) != file.after:
                break
            base, expected = file.before or b"", file.before
        return base

    def _read(self, path: Path) -> ClientRecord:
        try:
            return from_json(ClientRecord, path.read_bytes(), f"the record {path}")
        except Invalid as error:
            raise Invalid(error.message, hint="remove the file: its edits can then not be undone") from error


def read_client_file(path: str) -> bytes | None:
    """Return the bytes of a file, None for a missing one. Raises `TooLarge` and `OSError` with its path."""
    try:
        # A pipe without a writer would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Invalid(f"{path} is not a file")
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) > MOST_BYTES:
        raise TooLarge(f"{path} is larger than {size(MOST_BYTES)}")
    return data


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(data).hexdigest()


def missing_folders(path: str) -> tuple[str, ...]:
    """Return the folders above a path that do not exist, the outermost first."""
    found = []
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.isdir(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return tuple(reversed(found))


def write_client_file(path: str, data: bytes, expected: bytes | None) -> None:
    """Replace a file, or make it with its folders: after a crash it has the old bytes or the new ones.

    A link stays, and the file that it leads to is replaced. Mode and owner stay; a new file is for its user alone.

    expected: its bytes now; raises `Conflict` for others, and `OSError` with the path.
    """
    if read_client_file(path) != expected:
        raise Conflict(f"{path} has just been changed by another program", hint="try again")
    real = Path(os.path.realpath(path))
    before = os.stat(real) if expected is not None else None
    real.parent.mkdir(parents=True, exist_ok=True)
    private = real.with_name(f".{real.name}.{os.getpid()}.mullama")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if before is not None and hasattr(os, "fchmod"):
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with suppress(PermissionError):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
        private.replace(real)
    except BaseException as error:
        with suppress(OSError):
            private.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(real)) from error
        raise
    sync_folder(real.parent)


def remove_client_file(path: str, folders: Sequence[str]) -> None:
    """Remove a file and those of its folders that are empty then. folders: the outermost first."""
    real = Path(os.path.realpath(path))
    real.unlink(missing_ok=True)
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:  # it has other files
            break
