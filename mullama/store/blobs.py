"""Content-addressed files: nothing stands under a final name unless its SHA-256 is that name.

A download goes to a private partial file, is hashed while it is written, and is promoted by fsync, rename and
fsync of the folder, in this order. Locks save work (two processes do not fetch the same file twice); they are
not what keeps a wrong file out. Everything is opened relative to folder descriptors, never through a link.

    blobs/sha256-<hex>     checked files
    partial/<key>.<token>  what is being fetched, by the identity of its source, with <key>.<token>.json
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

_YOUNG: Final = 60.0
"""Seconds for which a file that was looked at need not be marked again."""
_FINAL: Final = re.compile(r"sha256-[0-9a-f]{64}")
_CORRUPT: Final = re.compile(r"sha256-[0-9a-f]{64}\.corrupt")


class Blobs:
    """The store under one folder, which is created when first written to."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, digest: str) -> str:
        """Where the file with this digest is, or will be; `Invalid` for anything but a digest."""
        return str(self.root / "blobs" / _name(digest))

    def has(self, digest: str) -> bool:
        """Whether the file is there as a regular file. Makes it young again, so that no sweep takes it now."""
        name = _name(digest)
        try:
            blobs = os.open(self.root / "blobs", FOLDER)
        except OSError:
            return False
        try:
            found = os.stat(name, dir_fd=blobs, follow_symlinks=False)
            if time.time() - found.st_atime > _YOUNG:
                # The time of the last change stays, by which the index knows the file again.
                now = (time.time_ns(), found.st_mtime_ns)
                with contextlib.suppress(OSError):  # a read-only store is still a store
                    os.utime(name, ns=now, dir_fd=blobs, follow_symlinks=False)
            return stat.S_ISREG(found.st_mode)
        except FileNotFoundError:
            return False
        finally:
            os.close(blobs)

    def open(self, digest: str) -> int:
        """A descriptor for reading; refuses whatever is not a regular file."""
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
        """Raise `Refused` when `wanted` more bytes do not fit on the disk of the store."""
        free = self.free()
        if wanted > free:
            raise Refused(
                f"{size(wanted)} are needed and {size(free)} are free in {self.root}",
                hint="free some space, or set MULLAMA_CACHE_DIR to a larger disk",
            )

    def free(self) -> int:
        """Bytes that may still be written."""
        there = self.root
        while not there.exists() and there != there.parent:
            there = there.parent
        with translate_os_errors(there):
            return shutil.disk_usage(there).free

    def fetched(self, identity: str) -> int:
        """Bytes of this source that an earlier try left and a next one can use."""
        return Partial.left_behind(self.root / "partial", _key(identity))

    @contextmanager
    def receive(self, identity: str) -> Iterator[Partial]:
        """A private partial file for the source `identity` (address and validator, or a digest), continued where
        an earlier process left one. It stays for the next try unless it was promoted or discarded."""
        for name in ("blobs", "partial", "locks"):
            os.close(open_folder(self.root / name))
        partial = Partial.claim(self.root, _key(identity))
        try:
            yield partial
        finally:
            partial.close()

    @contextmanager
    def only_one(self, identity: str, cancelled: Callable[[], bool], waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until no other process fetches `identity`. Where locks do not work, nobody waits."""
        descriptor = self._lock_file(_key(identity))
        try:
            _wait(descriptor, cancelled, waiting)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def using(self) -> Iterator[None]:
        """While this is held, no sweep runs: hold it from finding a file until it is recorded somewhere.

        Where the store cannot be written to, there is nothing to hold: nothing can be swept from it either.
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
        """Every checked file: digest, bytes, and when it was last used (unix seconds)."""
        return tuple((name.replace("-", ":", 1), size, used) for name, size, used in self._files(_FINAL))

    def _files(self, shape: re.Pattern[str]) -> list[tuple[str, int, float]]:
        """Name, bytes and time of the regular files whose names have this shape."""
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
        """Delete what nobody refers to, that is older than `grace` seconds; the digests that went.

        Does nothing while a process holds `using`. Half-fetched files go by the same age.
        """
        moment = time.time() if now is None else now
        with self._alone() as alone:
            if not alone:
                return ()
            gone = tuple(digest for digest, _ in self.swept(referenced, grace=grace, now=moment))
            corrupt = [name for name, _, used in self._files(_CORRUPT) if moment - used > grace]
            for name in (*map(_name, gone), *corrupt):
                path = self.root / "blobs" / name
                with translate_os_errors(path):
                    path.unlink(missing_ok=True)
            Partial.sweep(self.root / "partial", before=moment - grace)
        return gone

    def swept(
        self, referenced: frozenset[str], *, grace: float, now: float | None = None
    ) -> tuple[tuple[str, int], ...]:
        """What `sweep` would delete, with its bytes."""
        moment = time.time() if now is None else now
        return tuple((d, size) for d, size, used in self.listed() if d not in referenced and moment - used > grace)

    def verify(self, digest: str) -> bool:
        """Read the whole file and compare; a file that does not match is set aside."""
        descriptor = self.open(digest)
        with os.fdopen(descriptor, "rb") as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == Digest.parse(digest).hex
        if not right:
            os.rename(self.path(digest), f"{self.path(digest)}.corrupt")
        return right

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no process uses the store now, and none begins to."""
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
    """A file name for any text."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
