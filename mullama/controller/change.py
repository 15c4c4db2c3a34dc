"""A change on its way: what it wants, what it waits for, and what may end it before anything is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mullama.errors import Conflict, ManifestError, MullamaError, Refused
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.tree import revision
from mullama.plan.observed import Observed
from mullama.plan.steps import Action, Plan
from mullama.reconcile.execute import Report, exit_code
from mullama.reconcile.overlay import Overlay
from mullama.runtime.base import Access, ApplyOptions, Origin
from mullama.runtime.deployment import Snapshot
from mullama.weights.stored import LockEntry


@dataclass(eq=False, slots=True, kw_only=True)
class Change:
    """A change on its way. wanted: a manifest, or None for the one in force when its turn comes.

    fetched: sources whose files were fetched for it. shown: files that its plan would prune.
    """

    number: int
    wanted: Manifest | None
    origin: Origin
    options: ApplyOptions
    tell: Report
    edit: Callable[[Overlay], Overlay]
    doing: str
    revision: str = ""
    fetched: set[str] = field(default_factory=set)
    shown: frozenset[str] = frozenset()
    fetching: asyncio.Task[None] | None = None
    superseded: bool = False

    def __post_init__(self) -> None:
        self.revision = revision(self.wanted) if self.wanted is not None else ""

    @property
    def hot(self) -> bool:
        """Whether nobody asked for all or nothing: a file was saved, or is read again."""
        return self.wanted is not None and self.options.trigger in ("watch", "signal", "api")

    def outdated(self, newest: Change) -> bool:
        return self.wanted is not None and self.number < newest.number and self.revision != newest.revision


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """What a change comes to at this moment, made under the lock. lacks: models whose files must be fetched first."""

    manifest: Manifest
    overlay: Overlay
    desired: Manifest
    origin: Origin
    observed: Observed
    plan: Plan
    access: Access
    lock: Mapping[str, LockEntry]
    lacks: frozenset[str]


class PendingChanges:
    """The changes that wait for files, without the lock, and which manifest is the newest that was accepted."""

    def __init__(self) -> None:
        self._changes: set[Change] = set()
        self._newest: Change | None = None

    async def wait(self, change: Change, work: asyncio.Task[None]) -> None:
        """Until its files are here, or a newer manifest makes them pointless."""
        change.fetching = work
        self._changes.add(change)
        try:
            await work
        except asyncio.CancelledError:
            self.require_newest(change)
            raise
        finally:
            self._changes.discard(change)

    def accept(self, change: Change) -> None:
        """This manifest is the newest: older ones that still fetch for another wish end."""
        if change.wanted is None:
            return
        self._newest = change
        for older in self._changes:
            if older.outdated(change) and older.fetching is not None:
                older.fetching.cancel()

    def require_newest(self, change: Change) -> None:
        if self._newest is not None and change.outdated(self._newest):
            change.superseded = True
            raise Conflict(
                f"a newer manifest ({self._newest.doing}) came while this one waited for its files",
                hint="what was fetched is kept; mullama status shows what is served",
            )

    def accepted(self, change: Change) -> bool:
        """Whether somebody brought this very manifest before: the watch of the same file, for one."""
        return self._newest is not None and self._newest.revision == change.revision

    def any(self) -> bool:
        return bool(self._changes)

    def manifests(self) -> frozenset[str]:
        """The revisions of the manifests that wait."""
        return frozenset(change.revision for change in self._changes if change.wanted is not None)

    def in_part(self, revision: str) -> bool:
        """Whether a hot reload has applied what it could of this manifest. One that somebody applies as a whole does
        not count: what was saved in the followed file is seen at once, whoever applies it, too."""
        return any(change.hot and change.revision == revision for change in self._changes)


def guard(
    draft: PlannedChange, options: ApplyOptions, *, before: Manifest, served: Mapping[str, Model], ours: bool
) -> None:
    """Raise for 1. a stale plan  2. an empty wish  3. protected models.

    before: the manifest in force. served: every model that is served. ours: whether it was this very change that
    moved what was applied since the plan was made.
    """
    plan = draft.plan
    if options.expect is not None and options.expect != plan.base and not (ours or plan.empty):
        raise Conflict("the applied revision changed since the plan was made", hint="look at `mullama diff` again")
    if not draft.manifest.models and before.models and not options.allow_empty:
        raise Refused("the manifest names no models", hint="--allow-empty removes them all")
    for step in plan.steps:
        guarded = step.kind == "model" and step.subject in served and served[step.subject].protect
        if guarded and (step.pause or step.action is Action.REMOVE):
            does = "removed" if step.action is Action.REMOVE else "paused"
            raise Refused(
                f"{step.subject} is protected and would be {does}",
                hint="apply `protect: false` for it first",
            )


def failure_line(error: MullamaError, snapshot: Snapshot) -> dict[str, Any]:
    """The result of an apply that ended before anything was changed."""
    problems = [str(p) for p in error.problems] if isinstance(error, ManifestError) else []
    return {
        "event": "result",
        "exit": exit_code(error.kind),
        "message": str(error),
        "kind": error.kind.value,
        "hint": error.hint,
        "problems": problems,
        "generation": snapshot.generation,
        "revision": snapshot.revision,
        "models": {},
    }
