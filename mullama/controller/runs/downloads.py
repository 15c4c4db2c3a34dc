"""Downloads the files of models. Runs that need the same file share one download; it ends when no run needs it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mullama.controller.current import Current
from mullama.controller.runs.change import PlannedChange
from mullama.controller.runs.queue import PendingRuns, Run
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.tree import revision
from mullama.plan.observed import KnownFiles
from mullama.reconcile.execute import Effects, Report, fetch
from mullama.reconcile.files import Files
from mullama.reconcile.overlay import Overlay
from mullama.reconcile.pins import pins_of
from mullama.runtime.base import ApplyOptions
from mullama.runtime.metrics import Metrics
from mullama.sources.settings import Requester, requester
from mullama.struct import Struct, field, replace
from mullama.weights.stored import LockEntry

Begin = Callable[[Report], Coroutine[Any, Any, KnownFiles]]


class SharedDownload(Struct, eq=False):
    """One download and the receivers of its progress."""

    reports: list[Report] = field(default_factory=list)
    task: asyncio.Task[KnownFiles] | None = None

    def report(self, line: dict[str, Any]) -> None:
        for report in tuple(self.reports):
            report(line)


class SharedDownloads:
    """The running downloads, by a key of everything that a download depends on. Belongs to the event loop."""

    def __init__(self) -> None:
        self._downloads: dict[Hashable, SharedDownload] = {}
        self._users: Counter[Hashable] = Counter()

    @property
    def count(self) -> int:
        return len(self._downloads)

    @contextmanager
    def needed(self, keys: Iterable[Hashable]) -> Iterator[None]:
        """Keep downloads with these keys alive inside the block, also when their other users leave."""
        kept = tuple(keys)
        self._users.update(kept)
        try:
            yield
        finally:
            self._users.subtract(kept)
            for key in kept:
                if self._users[key] <= 0:
                    del self._users[key]
                    self._cancel(key)

    async def get(self, key: Hashable, begin: Begin, report: Report) -> KnownFiles:
        """Return the files of the download with this key; begin one if none is running."""
        with self.needed((key,)):
            download = self._downloads.get(key) or self._begin(key, begin)
            download.reports.append(report)
            try:
                assert download.task is not None
                return await asyncio.shield(download.task)
            finally:
                download.reports.remove(report)

    def _begin(self, key: Hashable, begin: Begin) -> SharedDownload:
        download = self._downloads[key] = SharedDownload()
        download.task = task = asyncio.create_task(begin(download.report))
        task.add_done_callback(lambda done: self._finished(key, download, done))
        return download

    def _finished(self, key: Hashable, download: SharedDownload, done: asyncio.Task[KnownFiles]) -> None:
        if self._downloads.get(key) is download:
            del self._downloads[key]
        if not done.cancelled():
            done.exception()  # marks it as retrieved: its users have raised it, or have left

    def _cancel(self, key: Hashable) -> None:
        """End a download without users. The received part stays in the store for the next one."""
        download = self._downloads.pop(key, None)
        if download is not None and download.task is not None:
            download.task.cancel()


def author_of(name: str, overlay: Overlay, options: ApplyOptions) -> Requester:
    """Return the author of the download of a model.

    The manifest may name any host. A model that was added by a command or a client keeps the rights of its author, and
    has those of a client where the author is unknown: after a restart.
    """
    author = requester.get()
    if name not in overlay:
        return replace(author, public_only=False)
    return replace(author, public_only=author.public_only or options.trigger in ("start", "retry"))


class ModelDownloads:
    """Downloads the files that a run needs."""

    def __init__(self, files: Files, pending: PendingRuns, metrics: Metrics) -> None:
        self._files, self._pending, self._metrics = files, pending, metrics
        self.running = SharedDownloads()

    async def fetch_missing(self, run: Run, planned: PlannedChange, effects: Effects) -> None:
        """Download the missing files of a plan. Raise `Conflict` when a newer manifest replaces the run."""
        run.report({"event": "phase", "phase": "fetch"})

        async def work() -> None:
            run.unavailable |= await fetch(
                planned.desired, planned.missing, effects, run.report, expendable=planned.expendable
            )

        models = [planned.desired.models[name] for name in planned.missing]
        options = run.change.options
        keys = [
            self._key(
                planned.desired,
                planned.lock,
                planned.desired.models[name],
                options.offline,
                author_of(name, planned.overlay, options),
            )
            for name in planned.missing
        ]  # fmt: skip
        with self.running.needed(keys):
            # Accepted only now, when the keys are registered: a download that an older run began and this one needs,
            # too, must survive the end of the older run.
            self._pending.accept(run)
            await self._pending.wait(run, asyncio.create_task(work()))
        run.fetched |= {source for model in models for source in model.all_sources}

    async def get(
        self,
        desired: Manifest,
        lock: Mapping[str, LockEntry],
        name: str,
        report: Report,
        *,
        offline: bool,
        author: Requester,
    ) -> KnownFiles:
        """Return the complete and verified files of one model of a manifest. lock: the entries of its lock file."""
        model = desired.models[name]

        def begin(report: Report) -> Coroutine[Any, Any, KnownFiles]:
            return self._files.ensure(
                model, desired, name, report,
                lock=lock, offline=offline, counted=self._count, author=author,
            )  # fmt: skip

        return await self.running.get(self._key(desired, lock, model, offline, author), begin, report)

    async def refresh(self, model: Model, current: Current, name: str, report: Report, *, again: bool) -> None:
        """Fetch what is missing. again: ask the source again, download what changed, and verify the stored files."""
        lock = await asyncio.to_thread(pins_of, current.manifest, current.origin.file)
        await self._files.ensure(
            model, current.snapshot.manifest, name, report,
            lock=lock, offline=False, counted=self._count, again=again, author=requester.get(),
        )  # fmt: skip

    def _count(self, received: int) -> None:
        self._metrics.pulled_bytes += received

    @staticmethod
    def _key(
        desired: Manifest, lock: Mapping[str, LockEntry], model: Model, offline: bool, author: Requester
    ) -> Hashable:
        digests = ((model.from_, model.digest), *((adapter.from_, adapter.digest) for adapter in model.adapters))
        sources = (*digests, *((source, None) for source in (*model.sources[1:], model.mmproj)))
        pins = tuple(pin.files for source, _ in sources if (pin := lock.get(source)))
        return (sources, pins, revision(desired.sources), offline, author)
