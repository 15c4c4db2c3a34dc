"""Makes the files of a source present: found by digest, recognised by size and hash, or downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import Final

from mullama.errors import MullamaError, TransferFailed, Unavailable
from mullama.sources.base import Cancelled, DownloadProgress, FileIndex, ForeignStores, Report
from mullama.sources.local_files import blocks, hashed, regular_size
from mullama.sources.settings import Settings
from mullama.struct import Struct, replace
from mullama.weights.located import LocatedFile

HASHED_AT_ONCE: Final = 64 * 1024**2
"""The largest file in bytes that a plan hashes; a download or an apply hashes larger ones."""


class DamagedCopy(TransferFailed):
    """A file of the store or of another tool does not have the bytes that its name promises."""


class StoredCopy(Struct, frozen=True):
    """A file on this machine with a promised digest. stamp: its state if the digest holds; "" if it is not checked."""

    path: str
    stamp: str


class FileFetcher:
    """Finds files in the store and in stores of other tools, and downloads the rest. Safe for several threads."""

    def __init__(self, index: FileIndex, foreign: ForeignStores, settings: Settings) -> None:
        self._index, self._foreign, self._settings = index, foreign, settings

    def find(self, digest: str, size: int | None, *, planning: bool = False) -> StoredCopy | None:
        """Return the first of `copies`, None for none."""
        return next(self.copies(digest, size, planning=planning), None)

    def copies(self, digest: str, size: int | None, *, planning: bool = False) -> Iterator[StoredCopy]:
        """Yield the files with this digest, of the store and of the declared stores of other tools.

        A file that changed since it was hashed is hashed again, or yielded unchecked if it is large.
        planning: trust the name of a file in another tool's store until it is used.
        """
        blobs = self._index.blobs
        if blobs.has(digest):
            if copy := self._copy_at(blobs.path(digest), digest, trusted=True):
                yield copy
            elif not planning:
                blobs.set_aside(digest)
        known = (path for path in self._index.paths_of(digest) if self._foreign.declares(path))
        for path in (*known, *self._foreign.by_digest(digest, size)):
            if copy := self._copy_at(path, digest, trusted=planning):
                yield copy

    def _copy_at(self, path: str, digest: str, *, trusted: bool) -> StoredCopy | None:
        """Return the file at a path; None if its digest is another one. trusted: believe a file that was never seen."""
        if not self._index.seen(path):
            stamp = self._index.stamp(path)
            if trusted and path == self._index.blobs.path(digest):
                with best_effort():
                    self._index.remember_digest(path, digest, stamp)
            return StoredCopy(path, stamp if trusted else "")
        try:
            found, stamp = self.digest_at(path, most=HASHED_AT_ONCE)
        except MullamaError:
            return None
        if found is None:
            return StoredCopy(path, "")
        return StoredCopy(path, stamp) if found == digest else None

    def digest_at(
        self, path: str, *, most: int | None = None, name: str = "",
        report: Report = lambda progress: None, cancelled: Cancelled = lambda: False,
    ) -> tuple[str | None, str]:  # fmt: skip
        """Return the digest of a file and the state for which it holds, from the index or by reading the file.

        most: return no digest for an unknown file of more bytes. Raises `Unavailable` for a file that changes while it
        is read.
        """
        stamp, known = self._index.stamp(path), self._index.digest(path)
        if known is None and (most is None or regular_size(path) <= most):
            known = hashed(path, name or path, report, cancelled)
            if self._index.stamp(path) != stamp:
                raise Unavailable(f"{path} changed while it was read", hint="try again when the file is complete")
            with best_effort():
                self._index.remember_digest(path, known, stamp)
        return known, stamp

    def all(self, files: tuple[LocatedFile, ...], report: Report, cancelled: Cancelled) -> tuple[LocatedFile, ...]:
        """Return every file with its path and digest; several are downloaded at a time."""
        if len(files) == 1:
            return (self._ensure(files[0], report, cancelled),)
        self._check_room(files)
        failed = False

        def stop() -> bool:
            return failed or cancelled()

        from concurrent.futures import ThreadPoolExecutor  # imports logging, which a plan does not need

        with ThreadPoolExecutor(max(1, self._settings.parallel), thread_name_prefix="fetch") as pool:
            work = [pool.submit(self._ensure, file, report, stop) for file in files]
            try:
                return tuple(job.result() for job in work)
            except BaseException:
                failed = True  # the other downloads end at their next check
                raise

    def _check_room(self, files: tuple[LocatedFile, ...]) -> None:
        """Raise `Refused` when the missing files do not fit on the disk together, before the first download."""
        wanted = {
            file.identity: file.size - self._index.blobs.fetched(file.identity)
            for file in files
            if file.path is None
            and file.size
            and not (file.digest and self.find(file.digest, file.size, planning=True))
        }
        self._index.blobs.check_room(sum(wanted.values()))

    def _ensure(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> LocatedFile:
        if file.path is not None:
            return self._in_place(file, report, cancelled)
        for copy in self.copies(file.digest, file.size) if file.digest else ():
            with suppress(DamagedCopy):
                return self._in_place(replace(file, path=copy.path, stamp=copy.stamp), report, cancelled)
        if file.digest and file.size:
            path = self._lookalike(file.digest, file.size, report, cancelled)
            if path is not None:
                return self._in_place(replace(file, path=path), report, cancelled)
        digest = self._copied(file, report, cancelled) or self._fetch(file, report, cancelled)
        path = self._index.blobs.path(digest)
        stamp = self._index.stamp(path)
        with best_effort():
            self._index.remember_digest(path, digest, stamp)
        return replace(file, path=path, digest=digest, size=os.path.getsize(path), stamp=stamp)

    def _lookalike(self, digest: str, size: int, report: Report, cancelled: Cancelled) -> str | None:
        """Return a file of a plain folder with this size whose hash is the digest; None for none."""
        for path in self._foreign.of_size(size):
            found, _ = self.digest_at(path, report=report, cancelled=cancelled)
            if found == digest:
                return path
        return None

    def _copied(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> str | None:
        """Copy a file with the wanted digest from anywhere on this machine into the store; None without one.

        The user may change or delete a file outside of the declared stores, so it cannot stand in for a download.
        """
        blobs = self._index.blobs
        for path in self._index.paths_of(file.digest) if file.digest else ():
            size = regular_size(path)
            blobs.check_room(size)
            with blobs.receive(f"copy of {file.digest}") as receiver:
                receiver.restart()
                for block in blocks(path, cancelled):
                    receiver.write(block)
                    report(DownloadProgress(file=file.name, phase="verifying", completed=receiver.offset, total=size))
                if receiver.digest() == file.digest:
                    report(DownloadProgress(file=file.name, phase="done", completed=size, total=size))
                    return receiver.promote()
                receiver.discard()
        return None

    def _fetch(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> str:
        from mullama.sources.http_client import open_web
        from mullama.sources.transfer import fetch

        near = bool(file.digest and self._settings.neighbours)

        def from_source() -> str:
            with open_web(self._settings, cancelled) as web:
                return fetch(file, self._index.blobs, web, report, self._settings.patience, mixed=near)

        if not near:
            return from_source()
        from mullama.sources.neighbours import fetch_near

        return fetch_near(file, self._index.blobs, self._settings, report, cancelled, from_source)

    def _in_place(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> LocatedFile:
        """Return a file that is used in place, with its size and digest. A large file is hashed once.

        Raises `DamagedCopy` for another digest than the expected one; a file of our store is set aside then.
        """
        path = file.path or ""
        try:
            size = regular_size(path)
        except MullamaError as error:
            if file.digest is None:
                raise
            raise DamagedCopy(error.message, hint=error.hint) from error
        if file.size is not None and size != file.size:
            if file.digest:
                raise self._damaged(file, path, f"{size} bytes instead of {file.size}")
            raise TransferFailed(f"{path} has {size} bytes; it had {file.size} when it was found", hint="try again")
        digest, stamp = file.digest, file.stamp
        if not digest or not stamp or stamp != self._index.stamp(path):
            digest, stamp = self.digest_at(path, name=file.name, report=report, cancelled=cancelled)
        if file.digest and digest != file.digest:
            raise self._damaged(file, path, f"the digest {digest} instead of {file.digest}")
        report(DownloadProgress(file=file.name, phase="found", completed=size, total=size, digest=digest))
        return replace(file, digest=digest, size=size, stamp=stamp)

    def _damaged(self, file: LocatedFile, path: str, why: str) -> DamagedCopy:
        if path == self._index.blobs.path(file.digest or ""):
            with best_effort():
                self._index.blobs.set_aside(file.digest or "")
        return DamagedCopy(f"{path} has changed: it has {why}", hint="a download replaces it: try again with a network")


def best_effort() -> AbstractContextManager[None]:
    """Ignore errors of a block that only saves later work: files in place can be used with a read-only store."""
    return suppress(MullamaError)
