"""Runs of changes: the tasks that perform them, their order, and which of them a newer change replaces."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mullama.controller.change import Change, Line
from mullama.controller.status import StatusTracker
from mullama.errors import Conflict, Internal, ModelUnavailable, MullamaError, Unavailable
from mullama.manifest.tree import revision
from mullama.reconcile.execute import Report, Result


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
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
    revision: str = ""
    """The revision of the desired manifest; empty for a change of the overlay alone."""

    def __post_init__(self) -> None:
        if self.change.desired is not None:
            self.revision = revision(self.change.desired)

    def report(self, line: Line) -> None:
        self.on_progress(line)
        self.change.progress.report(line)

    def replaced_by(self, newer: Run) -> bool:
        """True when `newer` arrived later with another manifest."""
        return self.change.desired is not None and self.number < newer.number and self.revision != newer.revision


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
                f"a newer manifest ({self._newest.label}) replaced this one while it waited for its files",
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
        task = asyncio.create_task(self._perform(run))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def _perform(self, run: Run) -> Result:
        """Execute the run. Every failure is a `MullamaError` or a cancellation, and is in the status."""
        begun = time.monotonic()
        self._status.begun(run.label)
        try:
            return await self._execute(run)
        except OSError as error:
            failed = Unavailable(f"the state of this server cannot be written: {error}", hint="is the disk full?")
            self._status.not_applied(failed)
            raise failed from error
        except (MullamaError, asyncio.CancelledError) as error:
            if not run.superseded:
                self._status.not_applied(error)
            raise
        except Exception as error:
            self._status.not_applied(error)
            traceback.print_exc()
            hint = "this is a bug; the log has the traceback"
            raise Internal(f"{type(error).__name__}: {error}", hint=hint) from error
        finally:
            self._status.ended(run.label, time.monotonic() - begun)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the status has it, and a reader may have left

    def cancel(self) -> None:
        """Cancel every run."""
        for task in tuple(self._tasks):
            task.cancel()
