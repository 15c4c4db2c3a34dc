"""Content-addressed files: each file has its SHA-256 as its name.

A download is written to a private partial file, hashed while it is written, and promoted by fsync, rename and fsync of
the folder, in this order. The hash alone keeps a wrong file out; locks only save work, because they keep two processes
from a download of the same file. Files are opened relative to descriptors of folders, never through a link.

    blobs/sha256-<hex>     verified files
    partial/<key>.<token>  downloads, by the identity of their source, each with a note <key>.<token>.json
    locks/<key>            empty files for flock
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mullama.errors import Denied, Refused
from mullama.names import Digest
from mullama.store.disk import FOLDER, NOFOLLOW, NONBLOCK, open_folder, share_lock, translate_os_errors, try_lock
from mullama.store.partial import Partial
from mullama.units import size

_TOUCH_EVERY: Final = 60.0
"""The least seconds between two updates of the time of last use of a file."""
_FINAL: Final = re.compile(r"sha256-[0-9a-f]{64}")
_CORRUPT: Final = re.compile(r"sha256-[0-9a-f]{64}\.corrupt")


class Blobs:
    """Reads and writes the store in one folder, which the first write creates."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, digest: str) -> str:
        """Return the path of the file with this digest, stored or not; raise `Invalid` for text that is no digest."""
        return str(self.root / "blobs" / _name(digest))

    def has(self, digest: str) -> bool:
        """Return True if the file is stored, and update its time of last use, which protects it from a sweep."""
        name = _name(digest)
        try:
            blobs = os.open(self.root / "blobs", FOLDER)
        except OSError:
            return False
        try:
            found = os.stat(name, dir_fd=blobs, follow_symlinks=False)
            if time.time() - found.st_atime > _TOUCH_EVERY:
                # The modification time stays, because the index identifies the file by it.
                now = (time.time_ns(), found.st_mtime_ns)
                with contextlib.suppress(OSError):  # a store may be read-only
                    os.utime(name, ns=now, dir_fd=blobs, follow_symlinks=False)
            return stat.S_ISREG(found.st_mode)
        except FileNotFoundError:
            return False
        finally:
            os.close(blobs)

    def open(self, digest: str) -> int:
        """Return a descriptor for reading; raise `Refused` for anything but a regular file."""
        blobs = open_folder(self.root / "blobs")
        try:
            with translate_os_errors(self.path(digest)):
                descriptor = os.open(_name(digest), os.O_RDONLY | NONBLOCK | NOFOLLOW, dir_fd=blobs)
        finally:
            os.close(blobs)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Refused(f"{self.path(digest)} is not a regular file")
        return descriptor

    def check_room(self, wanted: int) -> None:
        """Raise `Refused` when this many more bytes do not fit on the disk of the store."""
        free = self.free()
        if wanted > free:
            raise Refused(
                f"{size(wanted)} are needed and {size(free)} are free in {self.root}",
                hint="free some space, or set MULLAMA_CACHE_DIR to a larger disk",
            )

    def free(self) -> int:
        """Return the free bytes on the disk of the store."""
        folder = self.root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with translate_os_errors(folder):
            return shutil.disk_usage(folder).free

    def fetched(self, identity: str) -> int:
        """Return the bytes of this source that an earlier try downloaded and the next one can use."""
        return Partial.left_behind(self.root / "partial", _key(identity))

    @contextmanager
    def receive(self, identity: str) -> Iterator[Partial]:
        """Yield a private partial file for a source, which continues the file of an earlier process if there is one.

        identity: the digest of the file, or its address. The partial file stays for the next try unless it is promoted
        or discarded.
        """
        for name in ("blobs", "partial", "locks"):
            os.close(open_folder(self.root / name))
        partial = Partial.claim(self.root, _key(identity))
        try:
            yield partial
        finally:
            partial.close()

    @contextmanager
    def only_one(self, identity: str, cancelled: Callable[[], bool], waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until no other process downloads `identity`, then keep others from it. Does nothing without locks."""
        descriptor = self._lock_file(_key(identity))
        try:
            _wait(descriptor, cancelled, waiting)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def using(self) -> Iterator[None]:
        """Keep sweeps out. Hold it from the moment a file is found until a record refers to the file.

        Does nothing where the store cannot be written, because nothing can be swept from it.
        """
        try:
            descriptor = self._lock_file("sweep")
        except Denied:
            yield
            return
        try:
            share_lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def listed(self) -> tuple[tuple[str, int, float], ...]:
        """Return the digest, the bytes and the time of last use (unix seconds) of every file."""
        return tuple((name.replace("-", ":", 1), size, used) for name, size, used in self._files(_FINAL))

    def _files(self, shape: re.Pattern[str]) -> list[tuple[str, int, float]]:
        """Return the name, the bytes and the time of last use of the regular files whose names match."""
        try:
            entries = list(os.scandir(self.root / "blobs"))
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            if shape.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # another process may sweep as well
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.name, status.st_size, max(status.st_atime, status.st_mtime)))
        return sorted(found)

    def sweep(self, referenced: frozenset[str], *, grace: float, now: float | None = None) -> tuple[str, ...]:
        """Delete unreferenced files that were not used for `grace` seconds, and return their digests.

        Partial files are deleted at the same age. Does nothing while a process holds `using`. now: unix seconds.
        """
        moment = time.time() if now is None else now
        with self._exclusive() as exclusive:
            if not exclusive:
                return ()
            deleted = tuple(digest for digest, _ in self.swept(referenced, grace=grace, now=moment))
            corrupt = [name for name, _, used in self._files(_CORRUPT) if moment - used > grace]
            for name in (*map(_name, deleted), *corrupt):
                path = self.root / "blobs" / name
                with translate_os_errors(path):
                    path.unlink(missing_ok=True)
            Partial.sweep(self.root / "partial", before=moment - grace)
        return deleted

    def swept(
        self, referenced: frozenset[str], *, grace: float, now: float | None = None
    ) -> tuple[tuple[str, int], ...]:
        """Return the digests and bytes of the files that `sweep` would delete."""
        moment = time.time() if now is None else now
        return tuple((d, size) for d, size, used in self.listed() if d not in referenced and moment - used > grace)

    def verify(self, digest: str) -> bool:
        """Read a file and return True if its digest is right; else rename it to `.corrupt`."""
        descriptor = self.open(digest)
        with os.fdopen(descriptor, "rb") as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == Digest.parse(digest).hex
        if not right:
            self.set_aside(digest)
        return right

    def set_aside(self, digest: str) -> None:
        """Rename a file with wrong bytes to `.corrupt`, so that it is downloaded again."""
        with translate_os_errors(self.path(digest)):
            os.rename(self.path(digest), f"{self.path(digest)}.corrupt")

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Yield True when no process uses the store, and keep others out; False when one does."""
        descriptor = self._lock_file("sweep")
        try:
            yield try_lock(descriptor)
        finally:
            os.close(descriptor)

    def _lock_file(self, name: str) -> int:
        locks = open_folder(self.root / "locks")
        try:
            with translate_os_errors(self.root / "locks" / name):
                return os.open(name, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o600, dir_fd=locks)
        finally:
            os.close(locks)


def _wait(descriptor: int, cancelled: Callable[[], bool], waiting: Callable[[], None]) -> None:
    while not try_lock(descriptor):
        if cancelled():
            return
        waiting()
        time.sleep(0.1)


def _name(digest: str) -> str:
    return f"sha256-{Digest.parse(digest).hex}"


def _key(identity: str) -> str:
    """Return a file name for any text."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
