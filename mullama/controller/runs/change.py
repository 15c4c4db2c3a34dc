"""Changes to what a server serves: the request, its plan, and the checks before anything happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from mullama.codec import to_tree
from mullama.errors import Conflict, ManifestError, MullamaError, Refused
from mullama.manifest.spec import Manifest, Model
from mullama.plan.device_memory import device_memory
from mullama.plan.make import protections
from mullama.plan.observed import Observed
from mullama.plan.steps import Plan, located
from mullama.plan.steps import to_tree as plan_tree
from mullama.plan.tools import ToolPins
from mullama.problems import Location
from mullama.reconcile.overlay import Overlay
from mullama.runtime.base import Access, ApplyOptions, Origin
from mullama.runtime.snapshot import Snapshot
from mullama.struct import Struct, field
from mullama.weights.stored import LockEntry

Line = dict[str, Any]
"""One event of progress in its published JSON form."""

Edit = Callable[[Overlay], Overlay]
"""Returns the new overlay for the present one."""


class ProgressQueue:
    """Passes the progress of one task to one reader."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[Line | None] = asyncio.Queue()

    def report(self, line: Line) -> None:
        self._lines.put_nowait(line)

    async def follow(self, task: asyncio.Task[Any]) -> AsyncGenerator[Line, None]:
        """Yield each line until the task is done. Closing the iterator does not cancel the task."""
        task.add_done_callback(lambda _: self._lines.put_nowait(None))
        while (line := await self._lines.get()) is not None:
            yield line


def unchanged(overlay: Overlay) -> Overlay:
    """Return the overlay as it is."""
    return overlay


class Change(Struct, frozen=True, kw_only=True, eq=False):
    """A request to change what is served, built once where it enters the server."""

    desired: Manifest | None
    """The manifest without the overlay. None: the manifest that is in force when the change runs."""

    options: ApplyOptions
    origin: Origin = field(default_factory=Origin)
    """The source of `desired`. Not used when `desired` is None."""

    awaits_files: bool = True
    """False for a run that raises when files must be downloaded first, because another revision can be served."""

    restored: bool = False
    """True when `desired` is the last applied revision, because the file of `origin` cannot be used."""

    edit: Edit = unchanged
    save: Callable[[], Awaitable[None]] | None = None
    """Saves the text of the manifest: called once, when the plan is accepted and nothing is changed yet. An error ends
    the run."""
    only: frozenset[str] | None = None
    """The models that the change is limited to; None for no limit."""
    added: frozenset[str] = frozenset()
    """The models of `desired` that commands added elsewhere. The others are served without one whose files are gone."""
    progress: ProgressQueue = field(default_factory=ProgressQueue)

    @property
    def edits_overlay(self) -> bool:
        """True when the change is an edit of the overlay and nothing else, as a client's `pull` is."""
        return self.desired is None and self.edit is not unchanged

    @property
    def applies_in_part(self) -> bool:
        """True when the parts that need no download may be applied first: after a saved file or a reload.

        An explicit apply, one of targets, a start and an undo are applied completely or not at all.
        """
        whole = self.desired is not None and not self.options.targets
        return whole and self.options.trigger in ("watch", "signal", "api")

    @property
    def proves_valid(self) -> bool:
        """True when `desired` was read from its file, which is therefore valid."""
        return self.desired is not None and not self.restored

    @property
    def waits_for_unchanged(self) -> bool:
        """True when the run waits for missing files of models that it does not change.

        A start serves the other models at once, and a change of the overlay concerns its own model only. A change that
        is limited to some models is made for their files.
        """
        return self.only is not None or (self.desired is not None and self.options.trigger != "start")


class PlannedChange(Struct, frozen=True, kw_only=True):
    """A change with its plan at one moment, made under the lock."""

    manifest: Manifest
    """The manifest without the overlay."""

    overlay: Overlay
    """The overlay after the edit."""

    desired: Manifest
    """`manifest` and `overlay` combined."""

    origin: Origin
    observed: Observed
    plan: Plan
    access: Access
    lock: Mapping[str, LockEntry]
    missing: frozenset[str]
    """Models whose files must be downloaded first."""
    tool_pins: Mapping[str, ToolPins] = field(default_factory=dict)
    """The tools that the lock file pins, by their server."""
    expendable: frozenset[str] = frozenset()
    """Models that the others are served without when their files are missing or cannot be used."""


def preview_tree(planned: PlannedChange, places: Mapping[str, Location] | None = None) -> dict[str, Any]:
    """Return the plan in its published JSON form, with the memory of each device. places: see `plan.steps.located`."""
    memory = [to_tree(place) for place in device_memory(planned.desired, planned.observed)]
    return {**plan_tree(located(planned.plan, places or {})), "memory": memory}


def check_options(
    plan: Plan, manifest: Manifest, options: ApplyOptions, *, applied: Manifest, moved_by_same_change: bool = False
) -> None:
    """Raise `Conflict` for a stale plan and `Refused` for an empty manifest, unless the options allow it.

    manifest, applied: the new and the present manifest without the overlay. moved_by_same_change: the applied
    revision differs from the expected one only because this same change was applied in part or by another trigger.
    """
    stale = options.expect is not None and options.expect != plan.base
    if stale and not moved_by_same_change and not plan.empty:
        raise Conflict("the applied revision changed since the plan was made", hint="run `mullama diff` again")
    if not manifest.models and applied.models and not options.allow_empty:
        raise Refused("the manifest names no models", hint="--allow-empty removes them all")
    check_one_machine(manifest)


def check_one_machine(manifest: Manifest) -> None:
    """Raise `Refused` for a field that a server of one machine cannot honour."""
    scaled = next((name for name, model in manifest.models.items() if model.scale is not None), None)
    if scaled is not None:
        raise Refused(
            f"models.{scaled}.scale: a server of one machine has one replica of each model",
            hint="mullama apply --on ray scales it on a cluster; without scale the model is served here",
        )


def check_protected(plan: Plan, served: Mapping[str, Model]) -> None:
    """Raise `Refused` for a step that would remove or pause a served model with `protect: true`."""
    for text in protections(plan.steps, served):
        raise Refused(text, hint="apply `protect: false` for it first")


def check_surges(plan: Plan) -> None:
    """Raise `Refused` for a step that its own strategy does not allow."""
    for step in plan.steps:
        if step.refusal:
            raise Refused(f"{step.subject}: {step.refusal}", hint="use rollout.strategy auto or recreate")


def failure_line(error: MullamaError, snapshot: Snapshot) -> Line:
    """Return the result of an apply that failed before anything was changed."""
    problems = [str(p) for p in error.problems] if isinstance(error, ManifestError) else []
    return {
        "event": "result",
        "outcome": error.kind.value,
        "message": str(error),
        "hint": error.hint,
        "problems": problems,
        "generation": snapshot.generation,
        "revision": snapshot.revision,
        "models": {},
    }
