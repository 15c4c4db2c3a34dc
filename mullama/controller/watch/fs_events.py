"""The file events of a few folders, from the operating system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

# Milliseconds between two polls of watchfiles' event buffer. Each poll takes a core from the models for a moment, and
# a change that has settled is seen within two of them.
_STEP = 100


def library() -> Any:
    """Return watchfiles. It is imported in a thread, while the first model loads."""
    import watchfiles

    return watchfiles


class FileEvents:
    """Calls `changed` on each event in the watched folders. Some file systems send no events."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._watched: tuple[tuple[str, int], ...] = ()
        self._task: asyncio.Task[None] | None = None

    def watch(self, folders: Sequence[str]) -> None:
        """Watch exactly these folders. A folder that was recreated, or whose events ended, is watched anew."""
        watched = tuple((folder, _inode(folder)) for folder in folders)
        if self._task is not None:
            if watched == self._watched and not self._task.done():
                return
            self._task.cancel()
        self._watched = watched
        self._task = asyncio.create_task(self._listen(folders)) if folders else None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self, folders: Sequence[str]) -> None:
        """Wait for events in a thread: the asynchronous interface of watchfiles imports an event loop of its own."""
        watchfiles = await asyncio.to_thread(library)
        loop, stop = asyncio.get_running_loop(), threading.Event()
        ended: asyncio.Future[None] = loop.create_future()

        def listen() -> None:
            # No inotify instances left, or a folder vanished: the next call of `watch` tries again. The loop is closed
            # when the process ends.
            with contextlib.suppress(OSError, RuntimeError):
                options = {"debounce": 50, "step": _STEP, "rust_timeout": 0, "recursive": False, "stop_event": stop}
                for _ in watchfiles.watch(*folders, **options):
                    loop.call_soon_threadsafe(self._changed)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_end, ended)

        # No daemon: one that is in native code when the interpreter ends would abort the process.
        threading.Thread(target=listen, name="file events").start()
        try:
            await ended
        finally:
            stop.set()


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0
