"""Plans a change: compares the observed machine, store and served models with the desired manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mullama.controller.current import CurrentState
from mullama.controller.runs.change import Change, PlannedChange, check_options, check_protected
from mullama.controller.runs.served_files import ServedFiles
from mullama.controller.status import StatusTracker, live_models
from mullama.errors import Refused
from mullama.manifest.spec import Hardware, Manifest
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, Machine, Observed
from mullama.plan.steps import Action, Plan
from mullama.plan.targets import plan_targets, targeted
from mullama.reconcile.files import Files, wanted_kinds
from mullama.reconcile.gc import prunable
from mullama.reconcile.lock import require_locked
from mullama.reconcile.observe import last_applied, last_manifest, with_use
from mullama.reconcile.overlay import combine, models_beside
from mullama.reconcile.partial_apply import missing_models
from mullama.reconcile.pins import pins_of, tool_pins_of
from mullama.runtime.pool import Pool
from mullama.runtime.tools.book import ToolBook
from mullama.store.records import Records
from mullama.struct import replace
from mullama.weights.stored import LockEntry


class Planner:
    """Makes the plan of a change at one moment. It changes no model."""

    def __init__(
        self,
        *,
        state: CurrentState,
        status: StatusTracker,
        records: Records,
        files: Files,
        served_files: ServedFiles,
        pool: Pool,
        tools: ToolBook,
        observe_machine: Callable[[Hardware], Machine],
    ) -> None:
        self._state, self._status, self._records, self._files = state, status, records, files
        self._served_files, self._pool, self._tools, self._observe_machine = served_files, pool, tools, observe_machine

    async def plan(self, change: Change) -> PlannedChange:
        """Observe and plan, with the API keys as they are now."""
        current, options = self._state.value, change.options
        manifest = current.manifest if change.desired is None else change.desired
        origin = current.origin if change.desired is None else change.origin
        if manifest.fleet.hosts:
            raise Refused(
                "the manifest describes a fleet, and this is one of its servers",
                hint="mullama apply -f FILE, without --host, changes all servers of a fleet",
            )
        part = targeted(manifest, self._applied_manifest(), options.targets) if options.targets else None
        if part is not None:
            # Without its digest: the watcher would take the file for applied completely.
            manifest, origin = part.manifest, replace(origin, digest="", targets=part.targets)
        lock = await asyncio.to_thread(pins_of, manifest, origin.file)
        tool_pins = await asyncio.to_thread(tool_pins_of, manifest, origin.file)
        if options.locked:
            require_locked(part.chosen if part is not None else manifest, lock)
        overlay = change.edit(current.overlay)
        desired = combine(manifest, overlay)
        # Only an explicit apply deletes files: never a saved file or a start.
        observed = await self._observe(desired, lock, pruning=options.trigger == "apply" and part is None)
        observed = replace(observed, tools=self._tools.observed(desired, tool_pins))
        beside, only = models_beside(manifest, overlay), change.only
        if part is not None:
            served, path = current.started, origin.path
            plan = plan_targets(part, desired, observed, beside=beside, served=served, path=path)
        else:
            keeps = None if only is None else (lambda step: step.kind == "model" and step.subject in only)
            plan = make_plan(desired, observed, beside=beside, keeps=keeps)
        return PlannedChange(
            manifest=manifest,
            overlay=overlay,
            desired=desired,
            origin=origin,
            observed=observed,
            plan=plan,
            access=current.snapshot.access,
            lock=lock,
            tool_pins=tool_pins,
            missing=missing_models(plan, desired, observed.files),
        )

    async def _observe(self, desired: Manifest, lock: Mapping[str, LockEntry], *, pruning: bool) -> Observed:
        """Gather the facts for a plan. pruning: list the files that may be deleted, too."""
        machine = await asyncio.to_thread(self._observe_machine, desired.hardware)
        self._state.update(machine=machine)
        applied = self.applied()
        manifests = [desired, *([applied.manifest] if applied else [])]
        files = await asyncio.to_thread(self._files.known, manifests, lock)
        root = self._records.folder.parent
        unneeded = await asyncio.to_thread(prunable, desired, root, self._files, lock) if pruning else ()
        snapshot = self._state.value.snapshot
        live = live_models(snapshot, self._pool, self._status.failures, await self._served_files.look())
        files = with_use(files, manifests, self._records)
        return Observed(applied=applied, live=live, files=files, machine=machine, unneeded=unneeded)

    def applied(self) -> Applied | None:
        """Return the served revision, or before the first one, the last revision of the previous process."""
        snapshot = self._state.value.snapshot
        if snapshot.generation == 0:
            return last_applied(self._records)
        return Applied(generation=snapshot.generation, revision=snapshot.revision, manifest=snapshot.manifest)

    def _applied_manifest(self) -> Manifest | None:
        """Return the manifest of the served revision, or of the last one, without the overlay; None for none."""
        current = self._state.value
        return current.manifest if current.snapshot.generation else last_manifest(self._records)

    def check_options(self, change: Change, planned: PlannedChange, *, moved: bool = False) -> None:
        """See `change.check_options`. moved: its `moved_by_same_change`."""
        applied = self._state.value.manifest
        check_options(planned.plan, planned.manifest, change.options, applied=applied, moved_by_same_change=moved)

    def check_protected(self, plan: Plan, observed: Observed) -> None:
        """Raise `Refused` for a step that a protected model forbids.

        A server that starts pauses no request, but it removes what served before the restart.
        """
        current = self._state.value
        if current.started or observed.applied is None:
            check_protected(plan, {name: d.model for name, d in current.snapshot.deployments.items()})
        else:
            removals = tuple(step for step in plan.steps if step.action is Action.REMOVE)
            check_protected(replace(plan, steps=removals), observed.applied.manifest.models)

    def require_stored(self, planned: PlannedChange) -> None:
        """Raise `Unavailable` for the first missing source, as an offline apply would."""
        library = self._files.library(planned.desired)
        for name, model in planned.desired.models.items():
            if name in planned.missing:
                kinds = wanted_kinds([model])
                for source in model.all_sources:
                    library.locate(source, planned.lock.get(source), offline=True, wanted=kinds[source])
