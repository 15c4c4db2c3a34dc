"""The file events of a few folders, from the operating system."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

# Milliseconds between two polls of watchfiles' event buffer. Each poll takes a core from the models for a moment, and
# a change that has settled is seen within two of them.
_STEP = 100


def library() -> Any:
    """Return watchfiles. Its import, with that of its event loop, takes a tenth of the start of a server.

    So it is imported in a thread, while the first model loads.
    """
    import watchfiles

    with contextlib.suppress(ImportError):
        importlib.import_module("anyio._backends._asyncio")  # else the first watch imports it in the event loop
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
        watchfiles = await asyncio.to_thread(library)
        # No inotify instances left, or a folder vanished: the next call of `watch` tries again.
        with contextlib.suppress(OSError, RuntimeError):
            async for _ in watchfiles.awatch(*folders, debounce=50, step=_STEP, rust_timeout=0, recursive=False):
                self._changed()


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0
