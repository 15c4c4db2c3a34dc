"""Makes the files of a source present: found by digest, recognised by size and hash, or downloaded."""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from mullama.errors import BadWeights, MullamaError, TransferFailed, Unavailable
from mullama.sources.base import Cancelled, DownloadProgress, FileIndex, ForeignStores, Report
from mullama.sources.local_files import hashed
from mullama.sources.settings import Settings
from mullama.weights.located import LocatedFile


class FileFetcher:
    """Finds files in the store and in stores of other tools, and downloads the rest. Safe for several threads."""

    def __init__(self, index: FileIndex, foreign: ForeignStores, settings: Settings) -> None:
        self._index, self._foreign, self._settings = index, foreign, settings

    def path_of(self, digest: str, size: int | None) -> str | None:
        """Return a file with this digest: of the store, of the index, or of another tool by its name; None for none."""
        if self._index.blobs.has(digest):
            return self._index.blobs.path(digest)
        before = self._index.paths_of(digest)
        return before[0] if before else self._foreign.by_digest(digest, size)

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
            if file.path is None and file.size and not (file.digest and self.path_of(file.digest, file.size))
        }
        self._index.blobs.check_room(sum(wanted.values()))

    def _ensure(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> LocatedFile:
        if file.path is not None:
            return self._in_place(file, file.path, report, cancelled)
        path = self.path_of(file.digest, file.size) if file.digest else None
        if path is None and file.digest and file.size:
            path = self._lookalike(file.digest, file.size, report, cancelled)
        if path is not None and file.digest:
            size = _regular_size(path)
            report(DownloadProgress(file=file.name, phase="found", completed=size, total=size, digest=file.digest))
            return replace(file, path=path, size=size)
        digest = self._fetch(file, report, cancelled)
        path = self._index.blobs.path(digest)
        return replace(file, path=path, digest=digest, size=os.path.getsize(path))

    def _lookalike(self, digest: str, size: int, report: Report, cancelled: Cancelled) -> str | None:
        """Return a file of a plain folder with this size whose hash is the digest; None for none."""
        for path in self._foreign.of_size(size):
            found = self._index.digest(path)
            if found is None:
                found = hashed(path, path, report, cancelled)
                with best_effort():
                    self._index.remember_digest(path, found)
            if found == digest:
                return path
        return None

    def _fetch(self, file: LocatedFile, report: Report, cancelled: Cancelled) -> str:
        from mullama.sources.http_client import open_web
        from mullama.sources.transfer import fetch

        with open_web(self._settings, cancelled) as web:
            return fetch(file, self._index.blobs, web, report, self._settings.patience)

    def _in_place(self, file: LocatedFile, path: str, report: Report, cancelled: Cancelled) -> LocatedFile:
        """Return a file that is used in place, with its size and digest. A large file is hashed once."""
        digest = file.digest or self._index.digest(path)
        if digest is None:
            digest = hashed(path, file.name, report, cancelled)
            with best_effort():
                self._index.remember_digest(path, digest)
        size = _regular_size(path)
        if file.size is not None and size != file.size:
            raise TransferFailed(f"{path} has {size} bytes; it had {file.size} when it was found", hint="try again")
        report(DownloadProgress(file=file.name, phase="found", completed=size, total=size, digest=digest))
        return replace(file, digest=digest, size=size)


def best_effort() -> AbstractContextManager[None]:
    """Ignore errors of a block that only saves later work: files in place can be used with a read-only store."""
    return suppress(MullamaError)


def _regular_size(path: str) -> int:
    try:
        found = os.stat(path)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}", hint="another tool may have removed it") from error
    if not stat.S_ISREG(found.st_mode):
        raise BadWeights(f"{path} is not a regular file")
    return found.st_size
