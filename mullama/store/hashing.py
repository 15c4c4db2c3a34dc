"""A running SHA-256 of a file that grows, by a thread of its own: neither the network nor the disk waits for it."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Final

_PIECE: Final = 1024**2
_SYNC_EVERY: Final = 256 * 1024**2


class RunningHash:
    """Follows the file behind a descriptor as far as it is told that there are bytes, and makes them durable.

    It reads what was written, from the page cache as a rule, so nothing is kept in memory however far it is behind.
    hashed: how far it is. synced: so many bytes are safe even if the power fails.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._there = self.hashed = self.synced = 0
        self._closed = self._asked = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def reaches(self, end: int) -> None:
        """The file has so many bytes now, and they will not change. Raises `OSError` when it could not be read."""
        with self._changed:
            self._there = end
            if end - self.hashed >= _PIECE:
                self._changed.notify_all()
            if self._error is not None:
                raise self._error
        if self._thread is None and end:
            self._thread = threading.Thread(target=self._follow, name="hash", daemon=True)
            self._thread.start()

    def settled(self, seconds: float | None = None) -> bool:
        """Wait so long until everything so far is hashed; whether it is, or never will be."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self.hashed == self._there or self._error is not None, seconds)
            self._asked = False
            return done

    def hexdigest(self) -> str:
        """Of everything so far, once the thread has come there. Raises `OSError` when it could not."""
        self.settled()
        with self._changed:
            if self._error is not None:
                raise self._error
            return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread wherever it is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _follow(self) -> None:
        buffer = memoryview(bytearray(_PIECE))
        try:
            while count := self._more():
                read = os.preadv(self._descriptor, [buffer[:count]], self.hashed)
                if not read:
                    raise OSError(f"the file ends at {self.hashed} bytes, {self._there} were written")
                self._hash.update(buffer[:read])
                self._step(read)
                if self.hashed - self.synced >= _SYNC_EVERY:
                    end = self.hashed
                    os.fdatasync(self._descriptor)
                    self.synced = end
        except OSError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _more(self) -> int:
        """How many bytes to read next, once there is a whole piece or somebody waits; 0 at the end."""
        with self._changed:
            self._changed.wait_for(self._is_enough)
            return 0 if self._closed else min(_PIECE, self._there - self.hashed)

    def _is_enough(self) -> bool:
        left = self._there - self.hashed
        return self._closed or left >= _PIECE or (self._asked and left > 0)

    def _step(self, count: int) -> None:
        with self._changed:
            self.hashed += count
            if self.hashed == self._there:
                self._changed.notify_all()
