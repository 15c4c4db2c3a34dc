"""A running SHA-256 that is computed beside the writing, by a thread of its own: hashing releases the interpreter."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue
from typing import Final

_AHEAD: Final = 64
"""Pieces that may wait: the writer is held back rather than the memory filled."""


class RunningHash:
    """`update` hands over and returns; `hexdigest` waits for what was handed over. For one writing thread."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._waiting: SimpleQueue[bytes | memoryview | None] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._thread: threading.Thread | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Take note of bytes that will not change."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hash", daemon=True)
            self._thread.start()
        self._room.acquire()
        self._waiting.put(data)

    def hexdigest(self) -> str:
        """Of everything so far."""
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Finish what was handed over and end the thread; a later `update` begins another."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (data := self._waiting.get()) is not None:
            self._hash.update(data)
            self._room.release()
