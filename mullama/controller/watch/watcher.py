"""Watches the manifest's files and its lock file: notices a change, waits until it has settled, and passes it on.

The system's file events miss network mounts and swapped symlinks, so the watcher also compares file metadata every
two seconds, and reads the content every thirty seconds whatever the metadata are. In the same turn it looks at the
metadata of the served models' files, which it compares with those of their description.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from mullama.controller.event_log import EventLog
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change
from mullama.controller.status import removals
from mullama.controller.watch.debounce import STABLE, ChangedFiles, WatchDecision, Watched, decide, next_look
from mullama.controller.watch.fs_events import FileEvents
from mullama.errors import MullamaError, NotFound
from mullama.manifest.load import LoadedManifest, load
from mullama.manifest.spec import GitSync
from mullama.reconcile.git_repository import commit_of
from mullama.reconcile.includes import PinnedIncludes
from mullama.reconcile.pins import lock_path
from mullama.runtime.base import ApplyOptions, Origin, Reload
from mullama.runtime.pool import Pool
from mullama.struct import replace

LOOK_EVERY, READ_EVERY = 2.0, 30.0  # seconds
_HALF_SAVED = 0.3  # seconds that an editor gets to finish a file that cannot be read

FileState = tuple[str, int, int, int, str]
"""Path, inode, size, modification time in nanoseconds, and the real path."""

Fingerprint = tuple[FileState, ...]


def with_git(loaded: LoadedManifest, git: GitSync) -> LoadedManifest:
    """Return a manifest of a repository that is followed further: with this repository, unless it names one itself."""
    sync = loaded.manifest.sync
    if sync.git is not None:
        return loaded
    return replace(loaded, manifest=loaded.manifest.model_copy(update={"sync": sync.model_copy(update={"git": git})}))


def file_state(path: str) -> FileState:
    """Return the metadata of a file; zeros where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return (path, 0, 0, 0, "")
    return (path, found.st_ino, found.st_size, found.st_mtime_ns, os.path.realpath(path))


class ManifestWatcher:
    """Watches one manifest file and the files that it includes.

    read_every: seconds between two readings of the content. look_every: seconds between two looks at metadata.
    weights_settle: seconds for which changed files of models must stay the same. file_state, load: read metadata and
    content.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        pool: Pool,
        event_log: EventLog,
        env: Mapping[str, str],
        read_every: float = READ_EVERY,
        look_every: float = LOOK_EVERY,
        weights_settle: float = STABLE,
        file_state: Callable[[str], FileState] = file_state,
        load: Callable[..., LoadedManifest] = load,
    ) -> None:
        self._reconciler, self._pool, self._event_log, self._env = reconciler, pool, event_log, env
        self._status, self._remote = reconciler.status, PinnedIncludes(env)
        self._read_every, self._file_state, self._load_file = read_every, file_state, load
        self._look_every = look_every
        self._weights = ChangedFiles(weights_settle)
        self._wake = asyncio.Event()
        self._file_events = FileEvents(self._wake.set)
        self._origin = Origin()
        self._files: tuple[str, ...] = ()
        self._included: tuple[str, ...] = ()
        self._watched = Watched(applied="")
        self._last_read: Fingerprint = ()
        self._task: asyncio.Task[None] | None = None

    def follow(self, origin: Origin) -> None:
        """Watch the file of the manifest that was applied, of which a reload applies the whole."""
        origin = replace(origin, targets=())
        self._watched = Watched(applied=origin.digest, seen=origin.digest)
        if origin != self._origin:
            self._origin = origin
            self._files = (origin.file,) if origin.file else ()
            self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._file_events.close()

    async def reload(self, reason: str) -> Reload:
        """Read the file now, for a signal or a request. Removals are not held, since the reload is explicit."""
        if self._origin.path is None:
            raise NotFound("this server follows no file", hint="apply a manifest from a file first")
        try:
            loaded = await self._load()
        except MullamaError as error:
            self._reconciler.manifest_invalid(error)
            raise
        return await self._apply(loaded, ApplyOptions(trigger="signal" if reason == "SIGHUP" else "api", by=reason))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        fingerprint, read_at = self._fingerprint(), loop.time()
        while True:
            await self._wait(self._look_every)
            now = self._fingerprint()
            sync = self._reconciler.current.snapshot.manifest.sync
            watches = sync.watch or self._origin.checkout is not None
            if watches:
                await self._look_at_weights()
            if not self._origin.path or not watches:
                fingerprint = now
                continue
            if now != fingerprint or loop.time() - read_at > self._read_every:
                read_at = loop.time()
                try:
                    await self._read()
                except Exception as error:  # noqa: BLE001 - a failed turn must not end the watch
                    traceback.print_exc()
                    message = f"{type(error).__name__}: {error}"
                    self._event_log.add("watch-failed", self._origin.path or "", message)
                # As it was when it was read: a change since then is a new one.
                fingerprint = self._last_read

    async def _look_at_weights(self) -> None:
        """Serve the files of models as they are now, once changed ones have settled, and again once they are back."""
        states = {path: self._file_state(path) for path in await self._reconciler.served_files.look()}
        if not (settled := self._weights.saw(states, asyncio.get_running_loop().time())):
            return
        self._event_log.note("files-changed", "", f"{', '.join(sorted(settled))}: its models are described again")
        try:
            await self._reconciler.renew_files(settled)
        except MullamaError as error:
            self._event_log.note("warning", ", ".join(sorted(settled)), error.message)
        else:
            self._weights.described()

    async def _wait(self, seconds: float) -> None:
        """Wait for a file event or a new origin, at most so long."""
        self._file_events.watch(self._folders())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _folders(self) -> tuple[str, ...]:
        """Return the folders to watch, with those behind symbolic links."""
        folders = {str(Path(file).parent) for file in self._files} | set(self._included)
        folders |= {str(Path(os.path.realpath(file)).parent) for file in self._files}
        return tuple(sorted(folder for folder in folders if Path(folder).is_dir()))

    def _fingerprint(self) -> Fingerprint:
        """Return the metadata of every file that was read, and of the folders that contain them."""
        return tuple(sorted(self._file_state(path) for path in {*self._files, *self._folders()}))

    async def _read(self) -> None:
        """Read until the content has settled, then act on it; see `debounce.decide`."""
        loop = asyncio.get_running_loop()
        while True:
            self._last_read = self._fingerprint()
            try:
                loaded = await self._load()
                locked_anew = await self._reconciler.lock_changed()
            except MullamaError as error:
                if await self._unchanged():
                    self._reconciler.manifest_invalid(error)
                    return
                continue
            current = self._reconciler.current
            if self._reconciler.applied_in_part(loaded.manifest):
                self._watched = self._watched.saw(loaded.digest, loop.time())
                return
            removes, running = removals(loaded.manifest, current.overlay, current.snapshot, self._pool)
            # The content is what is applied, but another manifest waits for files or loads: this one ends that.
            reverted = self._watched.seen != loaded.digest and self._reconciler.waiting
            self._watched = self._watched.saw(loaded.digest, loop.time())
            match decide(self._watched, loop.time(), removes=removes, loaded=running):
                case WatchDecision.SAME if not (reverted or locked_anew):
                    self._status.valid_again()
                    return
                case WatchDecision.HELD:
                    self._status.held(removes, running, self._origin)
                    return
                case WatchDecision.APPLY | WatchDecision.SAME:
                    with contextlib.suppress(MullamaError):  # the status has it
                        await self._apply(loaded, ApplyOptions(trigger="watch", by="file"))
                    return
                case WatchDecision.WAIT:
                    await asyncio.sleep(min(0.2, next_look(self._watched, loop.time(), removes=removes)))

    async def _unchanged(self) -> bool:
        """Return True if a file that cannot be read stays as it is: else it was half saved."""
        await asyncio.sleep(_HALF_SAVED)
        return self._fingerprint() == self._last_read

    async def _load(self) -> LoadedManifest:
        origin = self._origin
        loaded = await asyncio.to_thread(
            self._load_file, origin.file, profiles=origin.profiles, env=self._env, remote=self._remote
        )
        if origin.checkout is not None and self._git is not None:
            loaded = with_git(loaded, self._git)
        self._files = tuple(file.path for file in loaded.files)
        if origin.file is not None:
            self._files += (str(lock_path(origin.file)),)
        self._included = loaded.folders
        return loaded

    @property
    def _git(self) -> GitSync | None:
        return self._reconciler.current.snapshot.manifest.sync.git

    def _commit(self) -> str:
        """Return the commit of the checkout that is followed, "" without one."""
        if self._origin.checkout is None or self._git is None:
            return ""
        return commit_of(self._origin.checkout.removesuffix(f"/{self._git.path}")) or ""

    async def _apply(self, loaded: LoadedManifest, options: ApplyOptions) -> Reload:
        """Apply what was read; return the result, or that files are still downloaded."""
        origin = replace(self._origin, digest=loaded.digest, commit=self._commit())
        same = self._reconciler.current.serves(loaded.manifest) and not self._reconciler.waiting
        if same and not await self._reconciler.lock_changed() and not await self._reconciler.served_files.look():
            self._watched = Watched(applied=loaded.digest, seen=loaded.digest)
            self._status.valid_again()
            if origin != self._reconciler.current.origin:  # an undo takes it over, and is not what the file has
                self._reconciler.comes_from(origin)
            return Reload(message=await self._reconciler.refresh_keys())
        if origin.commit and options.trigger == "watch":
            options = replace(options, by=f"commit {origin.commit[:12]}")
        change = Change(desired=loaded.manifest, origin=origin, options=options)
        async with contextlib.aclosing(self._reconciler.apply(change)) as lines:
            async for line in lines:
                # The run continues its downloads, and for a saved file its loads, without this reader.
                if line["event"] in ("result", "waiting"):
                    return Reload(message=str(line["message"]), outcome=str(line.get("outcome", "waiting")))
                if options.trigger == "watch" and line.get("phase") == "load":
                    break
        return Reload()
