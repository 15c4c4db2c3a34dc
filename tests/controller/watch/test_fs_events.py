"""File events of real folders."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from mullama.controller.watch.fs_events import FileEvents
from tests.runtime.runtime_fixture import run, until


async def touched(folder: Path, told: asyncio.Event) -> None:
    """Write until it is noticed: when a watch begins is the system's own affair."""
    told.clear()
    number = 0
    while not told.is_set():
        number += 1
        (folder / f"{number}.yaml").write_text("x")
        try:
            async with asyncio.timeout(0.5):
                await told.wait()
        except TimeoutError:
            continue


def test_what_happens_in_a_folder_is_told_again_and_again(tmp_path: Path) -> None:
    async def test() -> None:
        told = asyncio.Event()
        notices = FileEvents(told.set)
        notices.watch([str(tmp_path)])
        for _ in range(3):
            await touched(tmp_path, told)
        await notices.close()

    run(test)


def test_a_folder_that_was_made_anew_is_watched_anew(tmp_path: Path) -> None:
    folder, beside = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    beside.mkdir()

    async def test() -> None:
        told = asyncio.Event()
        notices = FileEvents(told.set)
        notices.watch([str(folder)])
        await touched(folder, told)
        shutil.move(folder, tmp_path / "old")  # what was watched is still there, under another name
        beside.rename(folder)
        notices.watch([str(folder)])
        await touched(folder, told)
        await notices.close()

    run(test)


def test_watching_the_same_folders_goes_on_and_one_that_ended_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, ...]] = []
    real = watchfiles.awatch

    async def awatch(*paths: str, **options: Any) -> AsyncGenerator[Any, None]:
        begun.append(paths)
        if len(begun) == 1:
            raise OSError(24, "inotify instance limit reached")
        async with aclosing(real(*paths, **options)) as changes:
            async for change in changes:
                yield change

    monkeypatch.setattr(watchfiles, "awatch", awatch)

    async def test() -> None:
        told = asyncio.Event()
        notices = FileEvents(told.set)
        notices.watch([str(tmp_path)])
        await until(lambda: bool(begun))
        notices.watch([str(tmp_path)])
        await touched(tmp_path, told)
        notices.watch([str(tmp_path)])
        notices.watch([str(tmp_path)])
        await touched(tmp_path, told)
        assert begun == [(str(tmp_path),)] * 2
        notices.watch([])
        await notices.close()

    run(test)
