"""A file that is downloaded into the store: private to one process, hashed while it is written, resumed after a kill.

Each partial file has a note next to it (`PartialRecord`). A process takes over a partial file when it gets the lock of
the file and the note names no process that runs. Both are needed: a lock may do nothing on a network disk, and a note
cannot name a process of another host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mullama.errors import MullamaError
from mullama.names import Digest
from mullama.store import process
from mullama.store.disk import NOFOLLOW, NONBLOCK, storage_error, sync_folder, translate_os_errors, try_lock
from mullama.store.hashing import RunningHash
from mullama.struct import Struct, asdict, replace

_EARLIER_NAMES: Final = {"boot": "boot_id", "born": "start_time"}
"""Fields of a note as earlier versions wrote them."""
_FILE: Final = re.compile(r"(?P<key>[0-9a-f]{32})\.[0-9a-f]{16}")


class PartialRecord(Struct, frozen=True, kw_only=True):
    """The note of a partial file: its writer, its source's validator, and the bytes that are on the disk."""

    host: str = ""
    released: bool = False
    """True when the writer has closed the file."""
    boot_id: str = ""
    pid: int = 0
    start_time: str = ""
    validator: str = ""
    """The ETag that a resumed request must send, "" for none."""
    total: int = -1
    """The size of the complete file in bytes, -1 if unknown."""
    synced: int = 0
    """Bytes that a power failure does not lose."""


class Partial:
    """Writes one partial file. `offset` is the number of bytes written so far; their hash follows them."""

    def __init__(self, root: Path, name: str, descriptor: int, note: PartialRecord) -> None:
        self._root, self._path, self._descriptor = root, root / "partial" / name, descriptor
        self._hash = RunningHash(descriptor)
        self._note = note
        self.offset = 0
        self._promoted = False

    @classmethod
    def claim(cls, root: Path, key: str) -> Partial:
        """Take over the largest partial file of `key` whose writer has ended, else begin a new one."""
        folder = root / "partial"
        files = sorted(_files(folder, key), key=lambda path: -path.stat().st_size if path.exists() else 0)
        for path in files:
            taken = cls._take(root, key, path)
            if taken is not None:
                return taken
        name = f"{key}.{secrets.token_hex(8)}"
        with translate_os_errors(folder / name):
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o644)
        try_lock(descriptor)
        partial = cls(root, name, descriptor, _owned(PartialRecord()))
        partial._write_note()
        return partial

    @classmethod
    def _take(cls, root: Path, key: str, path: Path) -> Partial | None:
        try:
            descriptor = os.open(path, os.O_RDWR | NONBLOCK | NOFOLLOW)
        except OSError:
            return None
        note, name = _read_note(path), f"{key}.{secrets.token_hex(8)}"
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not try_lock(descriptor) or not _writer_has_ended(note):
            os.close(descriptor)
            return None
        partial = cls(root, name, descriptor, _owned(note))
        partial._write_note()  # before the rename: a kill in between leaves the old file with its old note
        try:
            os.rename(path, path.with_name(name))  # where locks do nothing, one of two processes succeeds
        except OSError:
            partial._note_path().unlink(missing_ok=True)
            os.close(descriptor)
            return None
        _note_of(path).unlink(missing_ok=True)
        with translate_os_errors(path):
            partial._resume(note.synced if note.boot_id != process.boot_id() else None)
        return partial

    @property
    def validator(self) -> str:
        """The strong validator of these bytes by the source, "" for none."""
        return self._note.validator

    def remember(self, validator: str, total: int) -> None:
        """Keep the validator for a resumed request. total: the size of the complete file, -1 if unknown."""
        self._note = _owned(PartialRecord(validator=validator, total=total, synced=self._note.synced))
        self._write_note()

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.offset)
                self.offset += written
                view = view[written:]
            self._hash.reaches(self.offset)
        except OSError as error:
            raise storage_error(error, str(self._path)) from error
        if self._hash.synced > self._note.synced:
            self._note = replace(self._note, synced=self._hash.synced)
            self._write_note()

    def restart(self) -> None:
        """Discard all bytes and begin from zero."""
        self._hash.close()
        with translate_os_errors(self._path):
            os.ftruncate(self._descriptor, 0)
        self._hash, self.offset = RunningHash(self._descriptor), 0
        self._note = _owned(PartialRecord())
        self._write_note()

    @property
    def hashed(self) -> int:
        """The number of bytes that are hashed."""
        return self._hash.hashed

    def settled(self, seconds: float) -> bool:
        """Wait at most this long for the hash. Return True when it is at the end, or has failed."""
        return self._hash.settled(seconds)

    def digest(self) -> str:
        """Return the digest of the bytes so far."""
        with translate_os_errors(self._path):
            return f"sha256:{self._hash.hexdigest()}"

    def promote(self) -> str:
        """Give the file its digest as its final name, durably, and return the digest.

        Raises `Unavailable` when another file has taken the place of this one.
        """
        digest = Digest.parse(self.digest())
        with translate_os_errors(self._path):
            os.ftruncate(self._descriptor, self.offset)
            os.fchmod(self._descriptor, 0o644)
            os.fsync(self._descriptor)
            ours, named = os.fstat(self._descriptor), os.stat(self._path, follow_symlinks=False)
            if (ours.st_ino, ours.st_dev, ours.st_size) != (named.st_ino, named.st_dev, self.offset):
                raise OSError(f"{self._path} was replaced while it was written")
            os.rename(self._path, self._root / "blobs" / f"sha256-{digest.hex}")
            sync_folder(self._root / "blobs")
        self._promoted = True
        self._note_path().unlink(missing_ok=True)
        return digest.text

    def discard(self) -> None:
        """Remove the file and its note."""
        if not self._promoted:
            self._path.unlink(missing_ok=True)
            self._note_path().unlink(missing_ok=True)

    def close(self) -> None:
        """Release the file for the next try; remove an empty one. Closing twice does nothing."""
        if self._descriptor < 0:
            return
        self._hash.close()
        if self.offset == 0:
            self.discard()
        elif not self._promoted and self._path.exists():
            self._note = replace(self._note, released=True)
            with contextlib.suppress(MullamaError):  # a full disk must not hide the error that led here
                self._write_note()
        os.close(self._descriptor)
        self._descriptor = -1

    @staticmethod
    def left_behind(folder: Path, key: str) -> int:
        """Return the bytes of the largest partial file of `key`."""
        sizes = []
        for path in _files(folder, key):
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
        return max(sizes, default=0)

    @staticmethod
    def sweep(folder: Path, *, before: float) -> None:
        """Remove the files and notes of ended writers that are older than a moment (unix seconds)."""
        for path in _files(folder, None):
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | NONBLOCK | NOFOLLOW)
                try:
                    if os.fstat(descriptor).st_mtime < before and try_lock(descriptor):
                        path.unlink(missing_ok=True)
                        _note_of(path).unlink(missing_ok=True)
                finally:
                    os.close(descriptor)
        for note in _orphans(folder):
            with contextlib.suppress(OSError):
                if note.stat(follow_symlinks=False).st_mtime < before:
                    note.unlink(missing_ok=True)

    def _resume(self, safe: int | None) -> None:
        """Continue after the bytes on the disk.

        safe: the bytes that count after a restart of the machine; None when it did not restart.
        """
        size = os.fstat(self._descriptor).st_size
        self.offset = size if safe is None else min(size, safe)
        os.ftruncate(self._descriptor, self.offset)
        self._hash.reaches(self.offset)

    def _note_path(self) -> Path:
        return _note_of(self._path)

    def _write_note(self) -> None:
        """Write the note atomically."""
        path = self._note_path()
        fresh = path.with_name(f"{path.name}.new")
        with translate_os_errors(path):
            fresh.write_text(json.dumps(asdict(self._note)))
            os.replace(fresh, path)


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _files(folder: Path, key: str | None) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        match = _FILE.fullmatch(entry.name)
        if match and key in (None, match["key"]) and entry.is_file(follow_symlinks=False):
            yield folder / entry.name


def _orphans(folder: Path) -> list[Path]:
    """Return the notes without a file, complete or not: their writer was killed between two steps."""
    if not folder.is_dir():
        return []
    notes = [path for path in folder.iterdir() if path.name.endswith((".json", ".json.new"))]
    return [note for note in notes if not note.with_name(note.name.split(".json")[0]).exists()]


def _read_note(path: Path) -> PartialRecord:
    """Return the note of a file; an empty one for a note that cannot be read."""
    try:
        fields = json.loads(_note_of(path).read_text())
        note = PartialRecord(**{_EARLIER_NAMES.get(name, name): value for name, value in fields.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return PartialRecord()
    right = all(type(getattr(note, name)) is type(usual) for name, usual in asdict(PartialRecord()).items())
    return note if right else PartialRecord()


def _writer_has_ended(note: PartialRecord) -> bool:
    """Return True if the writer has certainly ended; False for a writer on another host."""
    if note.released:
        return True
    if note.pid == 0:
        return False
    if note.host != process.host():
        return False
    return note.boot_id != process.boot_id() or note.start_time != process.start_time(note.pid)


def _owned(note: PartialRecord) -> PartialRecord:
    """Return the note with this process as the writer."""
    pid = os.getpid()
    return replace(
        note,
        host=process.host(),
        boot_id=process.boot_id(),
        pid=pid,
        start_time=process.start_time(pid),
        released=False,
    )
