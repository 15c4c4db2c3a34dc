"""A file on its way into the store: private to one process, hashed while written, continued after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from mullama.errors import MullamaError
from mullama.names import Digest
from mullama.store import process
from mullama.store.disk import NOFOLLOW, NONBLOCK, storage_error, sync_folder, translate_os_errors, try_lock
from mullama.store.hashing import RunningHash

_EARLIER_NAMES: Final = {"boot": "boot_id", "born": "start_time"}
"""Fields of a note as earlier versions wrote them."""
_FILE: Final = re.compile(r"(?P<key>[0-9a-f]{32})\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRecord:
    """What is remembered beside a partial file: who writes it (`released` when nobody does), how the source
    knows this content, and up to which byte it is safe even if the power failed."""

    host: str = ""
    released: bool = False
    boot_id: str = ""
    pid: int = 0
    start_time: str = ""
    validator: str = ""
    total: int = -1
    synced: int = 0


class Partial:
    """One partial file, open for writing. `offset` bytes are on disk; their hash follows them."""

    def __init__(self, root: Path, name: str, descriptor: int, note: PartialRecord) -> None:
        self._root, self._path, self._descriptor = root, root / "partial" / name, descriptor
        self._hash = RunningHash(descriptor)
        self._note = note
        self.offset = 0
        self._promoted = False

    @classmethod
    def claim(cls, root: Path, key: str) -> Partial:
        """Take over the largest partial file of `key` whose writer is gone, else begin a new one."""
        folder = root / "partial"
        left = sorted(_files(folder, key), key=lambda path: -path.stat().st_size if path.exists() else 0)
        for path in left:
            taken = cls._take(root, key, path)
            if taken is not None:
                return taken
        name = f"{key}.{secrets.token_hex(8)}"
        with translate_os_errors(folder / name):
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o644)
        try_lock(descriptor)
        partial = cls(root, name, descriptor, _mine(PartialRecord()))
        partial._write_note()
        return partial

    @classmethod
    def _take(cls, root: Path, key: str, path: Path) -> Partial | None:
        try:
            descriptor = os.open(path, os.O_RDWR | NONBLOCK | NOFOLLOW)
        except OSError:
            return None
        note, name = _read_note(path), f"{key}.{secrets.token_hex(8)}"
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not try_lock(descriptor) or not _writer_gone(note):
            os.close(descriptor)
            return None
        partial = cls(root, name, descriptor, _mine(note))
        partial._write_note()  # first, so that a kill here leaves the old pair whole
        try:
            os.rename(path, path.with_name(name))  # of two that try, one succeeds
        except OSError:
            partial._note_path().unlink(missing_ok=True)
            os.close(descriptor)
            return None
        _note_of(path).unlink(missing_ok=True)
        with translate_os_errors(path):
            partial._continue(note.synced if note.boot_id != process.boot_id() else None)
        return partial

    @property
    def validator(self) -> str:
        """The strong validator that the source gave with these bytes, "" for none."""
        return self._note.validator

    def remember(self, validator: str, total: int) -> None:
        """Keep what a resumed request must quote; `total` is the size of the whole, -1 if unknown."""
        self._note = _mine(PartialRecord(validator=validator, total=total, synced=self._note.synced))
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
        """Throw the bytes away and begin from zero."""
        self._hash.close()
        with translate_os_errors(self._path):
            os.ftruncate(self._descriptor, 0)
        self._hash, self.offset = RunningHash(self._descriptor), 0
        self._note = _mine(PartialRecord())
        self._write_note()

    @property
    def hashed(self) -> int:
        """How far the hash has come."""
        return self._hash.hashed

    def settled(self, seconds: float) -> bool:
        """Whether the hash has come to the end, or failed, within this time."""
        return self._hash.settled(seconds)

    def digest(self) -> str:
        """Of what was written so far."""
        with translate_os_errors(self._path):
            return f"sha256:{self._hash.hexdigest()}"

    def promote(self) -> str:
        """Give the file its final name, its digest, durably; the digest. Raises when it is no longer ours."""
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
        """Remove the file: nothing of it can be used."""
        if not self._promoted:
            self._path.unlink(missing_ok=True)
            self._note_path().unlink(missing_ok=True)

    def close(self) -> None:
        """Release the file for whoever continues; an empty one leaves no trace. Closing twice does nothing."""
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
        """Bytes of the largest partial file of `key`."""
        sizes = []
        for path in _files(folder, key):
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
        return max(sizes, default=0)

    @staticmethod
    def sweep(folder: Path, *, before: float) -> None:
        """Remove what was left before this moment (unix seconds) by writers that are gone."""
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

    def _continue(self, safe: int | None) -> None:
        """Go on after what is on disk; after a restart of the machine only what was synced counts."""
        size = os.fstat(self._descriptor).st_size
        self.offset = size if safe is None else min(size, safe)
        os.ftruncate(self._descriptor, self.offset)
        self._hash.reaches(self.offset)

    def _note_path(self) -> Path:
        return _note_of(self._path)

    def _write_note(self) -> None:
        """Atomically: a note is whole or not there."""
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
    """Notes, half-written ones too, whose file is gone: a writer was killed between two steps."""
    if not folder.is_dir():
        return []
    notes = [path for path in folder.iterdir() if path.name.endswith((".json", ".json.new"))]
    return [note for note in notes if not note.with_name(note.name.split(".json")[0]).exists()]


def _read_note(path: Path) -> PartialRecord:
    """The note, or an empty one: then the file is used by its bytes alone."""
    try:
        fields = json.loads(_note_of(path).read_text())
        note = PartialRecord(**{_EARLIER_NAMES.get(name, name): value for name, value in fields.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return PartialRecord()
    right = all(type(getattr(note, name)) is type(usual) for name, usual in asdict(PartialRecord()).items())
    return note if right else PartialRecord()


def _writer_gone(note: PartialRecord) -> bool:
    """Whether the process that wrote the file has certainly ended. The lock alone is not believed, since
    locks of network disks may do nothing: a file of another host is left alone."""
    if note.released:
        return True
    if note.pid == 0:
        return False
    if note.host != process.host():
        return False
    return note.boot_id != process.boot_id() or note.start_time != process.start_time(note.pid)


def _mine(note: PartialRecord) -> PartialRecord:
    pid = os.getpid()
    return replace(
        note,
        host=process.host(),
        boot_id=process.boot_id(),
        pid=pid,
        start_time=process.start_time(pid),
        released=False,
    )
