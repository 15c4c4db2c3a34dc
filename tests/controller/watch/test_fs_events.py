"""File events of real folders."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from mullama.controller.watch.fs_events import FileEvents
from tests.runtime.runtime_fixture import until

pytestmark = pytest.mark.anyio


async def touched(folder: Path, changed: asyncio.Event) -> None:
    """Write until an event arrives: the system does not report when a watch is active."""
    changed.clear()
    number = 0
    while not changed.is_set():
        number += 1
        (folder / f"{number}.yaml").write_text("x")
        try:
            async with asyncio.timeout(0.5):
                await changed.wait()
        except TimeoutError:
            continue


async def test_each_change_in_a_folder_is_reported(tmp_path: Path) -> None:
    changed = asyncio.Event()
    events = FileEvents(changed.set)
    events.watch([str(tmp_path)])
    for _ in range(3):
        await touched(tmp_path, changed)
    await events.close()


async def test_a_recreated_folder_is_watched_anew(tmp_path: Path) -> None:
    folder, beside = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    beside.mkdir()
    changed = asyncio.Event()
    events = FileEvents(changed.set)
    events.watch([str(folder)])
    await touched(folder, changed)
    shutil.move(folder, tmp_path / "old")  # what was watched is still there, under another name
    beside.rename(folder)
    events.watch([str(folder)])
    await touched(folder, changed)
    await events.close()


async def test_a_watch_continues_and_one_that_ended_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, ...]] = []
    real = watchfiles.watch

    def watch(*paths: str, **options: Any) -> Iterator[Any]:
        begun.append(paths)
        if len(begun) == 1:
            raise OSError(24, "inotify instance limit reached")
        yield from real(*paths, **options)

    monkeypatch.setattr(watchfiles, "watch", watch)
    changed = asyncio.Event()
    events = FileEvents(changed.set)
    events.watch([str(tmp_path)])
    await until(lambda: events._task is not None and events._task.done())
    events.watch([str(tmp_path)])
    await touched(tmp_path, changed)
    events.watch([str(tmp_path)])
    events.watch([str(tmp_path)])
    await touched(tmp_path, changed)
    assert begun == [(str(tmp_path),)] * 2
    events.watch([])
    await events.close()


async def test_the_thread_of_a_watch_ends_with_it(tmp_path: Path) -> None:
    changed = asyncio.Event()
    events = FileEvents(changed.set)
    events.watch([str(tmp_path)])
    await touched(tmp_path, changed)
    assert any(thread.name == "file events" for thread in threading.enumerate())
    await events.close()
    await until(lambda: not any(thread.name == "file events" for thread in threading.enumerate()))
