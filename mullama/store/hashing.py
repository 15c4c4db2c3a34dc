"""The SHA-256 of a growing file, computed by a thread of its own so that the download does not wait for it."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Final

PIECE: Final = 1024**2
SYNC_EVERY: Final = 256 * 1024**2


class RunningHash:
    """Hashes the file behind a descriptor up to the end that `reaches` reports, and syncs it to the disk.

    The thread reads the written bytes back, as a rule from the page cache, so a slow hash needs no memory.
    """

    def __init__(self, descriptor: int, *, piece: int = PIECE, sync_every: int = SYNC_EVERY) -> None:
        """piece: bytes of one read. sync_every: bytes between two syncs."""
        self._descriptor, self._piece, self._sync_every = descriptor, piece, sync_every
        self._hash = hashlib.sha256()
        self._end = 0
        self.hashed = 0
        """Bytes that are hashed."""
        self.synced = 0
        """Bytes that a power failure does not lose."""
        self._closed = self._waiting = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def reaches(self, end: int) -> None:
        """Report that the file has this many bytes, which no longer change. Raises `OSError` when a read failed."""
        with self._changed:
            self._end = end
            if end - self.hashed >= self._piece:
                self._changed.notify_all()
            if self._error is not None:
                raise self._error
        if self._thread is None and end:
            self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)
            self._thread.start()

    def settled(self, seconds: float | None = None) -> bool:
        """Wait at most this long for the hash. Return True when it is at the end, or has failed."""
        with self._changed:
            self._waiting = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self.hashed == self._end or self._error is not None, seconds)
            self._waiting = False
            return done

    def hexdigest(self) -> str:
        """Wait for the hash of all bytes so far and return it. Raises `OSError` when a read failed."""
        self.settled()
        with self._changed:
            if self._error is not None:
                raise self._error
            return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread, also before the end of the file."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _follow(self) -> None:
        buffer = memoryview(bytearray(self._piece))
        try:
            while count := self._next_count():
                read = os.preadv(self._descriptor, [buffer[:count]], self.hashed)
                if not read:
                    raise OSError(f"the file ends at {self.hashed} bytes, {self._end} were written")
                self._hash.update(buffer[:read])
                self._step(read)
                if self.hashed - self.synced >= self._sync_every:
                    end = self.hashed
                    os.fdatasync(self._descriptor)
                    self.synced = end
        except OSError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next_count(self) -> int:
        """Wait for the next bytes and return their number; 0 after `close`.

        Less than a piece is read only while `settled` waits.
        """
        with self._changed:
            self._changed.wait_for(self._is_enough)
            return 0 if self._closed else min(self._piece, self._end - self.hashed)

    def _is_enough(self) -> bool:
        left = self._end - self.hashed
        return self._closed or left >= self._piece or (self._waiting and left > 0)

    def _step(self, count: int) -> None:
        with self._changed:
            self.hashed += count
            if self.hashed == self._end:
                self._changed.notify_all()
