"""Runs of changes: the tasks that perform them, their order, and which of them a newer change replaces."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mullama.controller.runs.change import Change, Line
from mullama.controller.status import StatusTracker
from mullama.errors import Conflict, Internal, ModelUnavailable, MullamaError, Unavailable
from mullama.manifest.tree import revision
from mullama.reconcile.execute import Overtaken, Report, Result
from mullama.struct import Struct, field

T = TypeVar("T")


class Run(Struct, eq=False, kw_only=True):
    """The execution of one change, over several plans when files must be downloaded in between."""

    change: Change
    number: int
    """Increases with every change; orders changes by arrival."""

    label: str
    """The trigger, its author and the time of arrival, for status and messages."""

    on_progress: Report
    """Receives each line of progress before the reader of the change does."""

    fetched: set[str] = field(default_factory=set)
    """Sources whose files were downloaded for this run."""

    unavailable: dict[str, ModelUnavailable] = field(default_factory=dict)
    """Expendable models whose files this run does not wait for, with the reason."""

    prunable: frozenset[str] = frozenset()
    """Digests of the files that the reported plan would prune. Only these are pruned."""

    download: asyncio.Task[None] | None = None
    superseded: bool = False
    overtakers: list[Run] = field(default_factory=list)
    """Later runs that wait for this one and want something else."""

    overtaken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first of them."""

    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the run has changed what is served, or has ended."""

    loading: bool = False
    """The revision is committed, and the run has not ended."""

    planned: bool = False
    """The plan was reported."""

    saved: bool = False
    """The text of the manifest was saved; see `Change.save`."""

    revision: str = ""
    """The revision of the desired manifest, with the targets; empty for a change of the overlay alone."""

    def __post_init__(self) -> None:
        if self.change.desired is not None:
            self.revision = " ".join((revision(self.change.desired), *self.change.options.targets))

    def report(self, line: Line) -> None:
        self.loading |= line.get("phase") == "load"
        self.on_progress(line)
        self.change.progress.report(line)

    async def save(self) -> None:
        """Save the text of the manifest once, for a change that comes from an editor."""
        if not self.saved and self.change.save is not None:
            await self.change.save()
        self.saved = True

    @property
    def unsaved(self) -> bool:
        """True while the text of a change that comes from an editor is not saved."""
        return self.change.save is not None and not self.saved

    def replaced_by(self, newer: Run) -> bool:
        """True when `newer` arrived later with another manifest."""
        return self.change.desired is not None and self.number < newer.number and self.revision != newer.revision

    def overtakes(self, older: Run) -> bool:
        """True when this run must not wait for the loads of `older`: it brings another manifest or an edit."""
        return self.change.desired is None or self.revision != older.revision

    async def unless_overtaken(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of the work. Raise `Overtaken`, and cancel it, when another change waits for this run."""
        task, overtaken = asyncio.ensure_future(work), asyncio.ensure_future(self.overtaken.wait())
        try:
            await asyncio.wait({task, overtaken}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Overtaken
            return task.result()
        finally:
            overtaken.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def let_pass(self) -> None:
        """Wait until the runs that overtook this one have changed what is served, or have ended."""
        for run in self.overtakers:
            await run.settled.wait()
        self.overtakers.clear()
        self.overtaken.clear()


class PendingRuns:
    """Tracks the runs that wait for downloads, and the newest accepted manifest."""

    def __init__(self) -> None:
        self._runs: set[Run] = set()
        self._newest: Run | None = None

    async def wait(self, run: Run, download: asyncio.Task[None]) -> None:
        """Wait for the download of a run. Raise `Conflict` when a newer manifest replaces the run."""
        run.download = download
        self._runs.add(run)
        try:
            await download
        except asyncio.CancelledError:
            self.require_current(run)
            raise
        finally:
            self._runs.discard(run)

    def accept(self, run: Run) -> None:
        """Note that the manifest of this run is the newest, and cancel older runs that download for another one."""
        if run.change.desired is None:
            return
        self._newest = run
        for older in self._runs:
            if older.replaced_by(run) and older.download is not None:
                older.download.cancel()

    def require_current(self, run: Run) -> None:
        """Raise `Conflict` when a newer manifest was accepted since this run began."""
        if self._newest is not None and run.replaced_by(self._newest):
            run.superseded = True
            raise Conflict(
                f"a newer manifest ({self._newest.label}) replaced this one while it waited for its files or loads",
                hint="downloaded files are kept; mullama status shows what is served",
            )

    def accepted(self, run: Run) -> bool:
        """True when the same manifest was accepted before, for example from the watch of the same file."""
        return self._newest is not None and self._newest.revision == run.revision

    @property
    def empty(self) -> bool:
        return not self._runs

    @property
    def manifests(self) -> frozenset[str]:
        """The revisions of the manifests that wait for their files."""
        return frozenset(run.revision for run in self._runs if run.change.desired is not None)

    def applied_in_part(self, revision: str) -> bool:
        """True when a hot reload has applied the parts of this manifest that need no download.

        An explicit apply of the same manifest does not count: it applies nothing before its files are here.
        """
        return any(run.change.applies_in_part and run.revision == revision for run in self._runs)


class RunQueue:
    """Performs each change in a task of its own and reports its start, progress and end to the status.

    execute: performs one run; it takes the reconciler's lock, so runs are executed in order of arrival.
    """

    def __init__(self, execute: Callable[[Run], Awaitable[Result]], status: StatusTracker) -> None:
        self._execute, self._status = execute, status
        self._tasks: set[asyncio.Task[Result]] = set()
        self._runs: list[Run] = []  # that have not ended, oldest first
        self._number = 0

    def start(self, change: Change) -> asyncio.Task[Result]:
        """Begin a run of this change. The task continues when its reader leaves."""
        by = f" by {change.options.by}" if change.options.by else ""
        label = f"{change.options.trigger}{by}, since {time.strftime('%H:%M:%S')}"
        self._number += 1
        run = Run(
            change=change, number=self._number, label=label,
            on_progress=lambda line: self._status.progressed(line, label),
        )  # fmt: skip
        for older in self._runs:
            if run.overtakes(older):
                older.overtakers.append(run)
                older.overtaken.set()
        self._runs.append(run)
        task = asyncio.create_task(self._perform(run))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._finished(run, task))
        return task

    @property
    def loading(self) -> str | None:
        """The revision of the newest manifest, while the run that brought it loads its models; else None."""
        newest = next((run for run in reversed(self._runs) if run.change.desired is not None), None)
        return newest.revision if newest is not None and newest.loading else None

    async def _perform(self, run: Run) -> Result:
        """Execute the run. Every failure is a `MullamaError` or a cancellation, and is in the status."""
        begun = time.monotonic()
        self._status.begun(run.label)
        try:
            return await self._execute(run)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            failed = Unavailable(f"the state of this server cannot be written: {what}", hint="free some space")
            self._status.not_applied(failed)
            raise failed from error
        except (MullamaError, asyncio.CancelledError) as error:
            # A refused edit of the overlay, or of a text that was not saved, leaves the server in line with what is
            # declared: its caller gets the error.
            if not run.superseded and not run.change.edits_overlay and not run.unsaved:
                self._status.not_applied(error)
            raise
        except Exception as error:
            self._status.not_applied(error)
            traceback.print_exc()
            hint = "this is a bug; the log has the traceback"
            raise Internal(f"{type(error).__name__}: {error}", hint=hint) from error
        finally:
            self._status.ended(run.label, time.monotonic() - begun)

    def _finished(self, run: Run, task: asyncio.Task[Any]) -> None:
        self._runs.remove(run)
        run.settled.set()
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the status has it, and a reader may have left

    def cancel(self) -> None:
        """Cancel every run."""
        for task in tuple(self._tasks):
            task.cancel()
