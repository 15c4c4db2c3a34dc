"""Follows the manifest's files: notices a change, waits until it has settled, and sends it down the one road.

Notices by the system's file events and, because those miss network mounts and swapped symlinks, by looking
every two seconds; every thirty seconds the content itself is read, whatever the file system says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

from mullama.controller.reconciler import Reconciler
from mullama.controller.watch.debounce import WatchDecision, Watched, judge, next_look
from mullama.controller.watch.fs_events import FileEvents
from mullama.errors import MullamaError, NotFound
from mullama.manifest.load import LoadedManifest, load
from mullama.manifest.tree import block_to_tree
from mullama.runtime.base import ApplyOptions, Origin

LOOK_EVERY, READ_EVERY = 2.0, 30.0
Fingerprint = tuple[tuple[str, int, int, int, str], ...]


class ManifestWatcher:
    """One manifest file and whatever it includes."""

    def __init__(self, reconciler: Reconciler, env: Mapping[str, str]) -> None:
        self._reconciler = reconciler
        self._env = env
        self._poke = asyncio.Event()
        self._notices = FileEvents(self._poke.set)
        self._origin = Origin()
        self._files: tuple[str, ...] = ()
        self._included: tuple[str, ...] = ()
        self._watched = Watched(applied="")
        self._read: Fingerprint = ()
        self._task: asyncio.Task[None] | None = None
        reconciler.after.append(self._follow)

    def _follow(self, origin: Origin) -> None:
        """A manifest was applied: its file is the one to follow now."""
        self._watched = Watched(applied=origin.digest, seen=origin.digest)
        if origin != self._origin:
            self._origin = origin
            self._files = (origin.path,) if origin.path else ()
            self._poke.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._notices.close()

    async def reload(self, reason: str) -> str:
        """Read the file again now, by signal or request; removals are not held back: somebody asked."""
        if self._origin.path is None:
            raise NotFound("this server follows no file", hint="apply a manifest from a file first")
        try:
            loaded = await self._load()
        except MullamaError as error:
            self._reconciler.invalid(error)
            raise
        options = ApplyOptions(trigger="signal" if reason == "SIGHUP" else "api", by=reason)
        return await self._apply(loaded, options)

    async def _run(self) -> None:
        """Look whenever something may have happened, and act on what is there."""
        loop = asyncio.get_running_loop()
        fingerprint, read_at = self._fingerprint(), loop.time()
        while True:
            await self._wait(LOOK_EVERY)
            now = self._fingerprint()
            if not self._origin.path or not self._reconciler.snapshot.manifest.sync.watch:
                fingerprint = now
                continue
            if now != fingerprint or loop.time() - read_at > READ_EVERY:
                read_at = loop.time()
                fingerprint = await self._settled()

    async def _settled(self) -> Fingerprint:
        """Act on what is there; the files as they were read last, so that a later change is not taken for that one."""
        try:
            await self._settle()
        except Exception as error:  # noqa: BLE001 - one bad turn must not end the following of the file
            traceback.print_exc()
            self._reconciler.journal.add("watch-failed", self._origin.path or "", f"{type(error).__name__}: {error}")
        return self._read

    async def _wait(self, seconds: float) -> None:
        """Until the system reports a change, somebody pokes, or the time is over."""
        self._notices.watch(self._folders())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._poke.wait()
        self._poke.clear()

    def _folders(self) -> tuple[str, ...]:
        """The folders in which a change may matter, links followed."""
        folders = {str(Path(file).parent) for file in self._files} | set(self._included)
        folders |= {str(Path(os.path.realpath(file)).parent) for file in self._files}
        return tuple(sorted(folder for folder in folders if Path(folder).is_dir()))

    def _fingerprint(self) -> Fingerprint:
        """What the file system says of every file that was read, and of the folders that hold them."""
        paths = {*self._files, *self._folders()}
        return tuple(sorted(_look(path) for path in paths))

    async def _settle(self) -> None:
        """Read until the content has been the same for long enough, then act on it; see `watch.judge`."""
        loop = asyncio.get_running_loop()
        while True:
            self._read = self._fingerprint()
            try:
                loaded = await self._load()
            except MullamaError as error:
                if await self._still_broken():
                    self._reconciler.invalid(error)
                    return
                continue
            if self._reconciler.under_way(loaded.manifest):
                self._watched = self._watched.saw(loaded.digest, loop.time())
                return
            removes, running = self._reconciler.removals(loaded.manifest)
            back = self._watched.seen != loaded.digest and self._reconciler.fetching
            self._watched = self._watched.saw(loaded.digest, loop.time())
            match judge(self._watched, loop.time(), removes=removes, loaded=running):
                case WatchDecision.SAME if not back:
                    self._reconciler.standing.valid_again()
                    return
                case WatchDecision.HELD:
                    self._reconciler.held(removes, running)
                    return
                case (
                    WatchDecision.APPLY | WatchDecision.SAME
                ):  # or back to what is applied, while something else is fetched
                    with contextlib.suppress(MullamaError):  # `_not_applied` has told it
                        await self._apply(loaded, ApplyOptions(trigger="watch", by="file"))
                    return
                case WatchDecision.WAIT:
                    await asyncio.sleep(min(0.2, next_look(self._watched, loop.time(), removes=removes)))

    async def _still_broken(self) -> bool:
        """A file that cannot be read now is given the settle time before anybody is told."""
        await asyncio.sleep(0.3)
        return self._fingerprint() == self._read  # as before it was read: it may have been half saved then

    async def _load(self) -> LoadedManifest:
        assert self._origin.path is not None
        loaded = await asyncio.to_thread(load, self._origin.path, profiles=self._origin.profiles, env=self._env)
        self._files = tuple(file.path for file in loaded.files)
        self._included = loaded.folders
        return loaded

    async def _apply(self, loaded: LoadedManifest, options: ApplyOptions) -> str:
        origin = Origin(path=self._origin.path, profiles=self._origin.profiles, digest=loaded.digest)
        if self._reconciler.is_applied(loaded.manifest) and not self._reconciler.fetching:
            self._watched = Watched(applied=loaded.digest, seen=loaded.digest)
            self._reconciler.standing.valid_again()
            return await self._reconciler.reread_keys()
        lines = self._reconciler.apply(block_to_tree(loaded.manifest), origin, options)
        async with contextlib.aclosing(lines):
            async for line in lines:
                if line["event"] in ("result", "waiting"):  # files are fetched by the reconciler alone
                    return str(line["message"])
        return ""


def _look(path: str) -> tuple[str, int, int, int, str]:
    try:
        found = os.stat(path)
    except OSError:
        return (path, 0, 0, 0, "")
    return (path, found.st_ino, found.st_size, found.st_mtime_ns, os.path.realpath(path))
