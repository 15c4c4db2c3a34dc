"""The one road of every change: start, a saved file, a signal, a POST and `apply` all end in `_run`.

A trigger carries no information: the wish is read, the world observed and the plan made again each time, so a
lost or doubled trigger does no harm. One change runs at a time, and those that fetch let others pass. If anything
fails before the swap, the old snapshot goes on serving and the reason is a condition.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from mullama.controller.api_keys import resolve_access
from mullama.controller.change import Change, PendingChanges, PlannedChange, failure_line, guard
from mullama.controller.effects import LiveEffects
from mullama.controller.event_log import EventLog
from mullama.controller.fetching import ModelDownloads
from mullama.controller.history import History
from mullama.controller.present import live_models, removals
from mullama.controller.status import StatusTracker
from mullama.errors import Internal, MullamaError, Unavailable
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.tree import block_to_tree, parse_resolved, revision
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Machine, Observed
from mullama.plan.steps import Plan, to_tree
from mullama.reconcile.execute import DONE, Result, execute
from mullama.reconcile.files import Files, read_lock
from mullama.reconcile.gc import declare, prunable, prune
from mullama.reconcile.lock import require_locked
from mullama.reconcile.machine import observe_machine
from mullama.reconcile.observe import last_applied
from mullama.reconcile.overlay import Overlay, beside, combine
from mullama.reconcile.partial_apply import lacking, meanwhile, without
from mullama.runtime.base import Access, ApplyOptions, Origin
from mullama.runtime.deployment import Snapshot
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Pool
from mullama.runtime.serving.build import DeploymentBuilder
from mullama.store.records import Records
from mullama.weights.stored import LockEntry

Line = dict[str, Any]


class Listeners(Protocol):
    """The part of the HTTP server that a manifest can change."""

    async def change(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Open what is new, then close what is gone; raises, with the old ones in place, when one cannot open."""
        ...


class Reconciler:
    """Owns the snapshot. All methods belong to the event loop."""

    def __init__(
        self,
        *,
        records: Records,
        pool: Pool,
        files: Files,
        listeners: Listeners,
        env: Mapping[str, str],
        journal: EventLog,
        stats: Metrics,
    ) -> None:
        self._records, self._pool, self._files, self._listeners = records, pool, files, listeners
        self._env, self.journal, self.stats = env, journal, stats
        self._busy = asyncio.Lock()
        self._runs: set[asyncio.Task[Any]] = set()
        self._generations = History(records, lambda message: journal.note("warning", "", message))
        self._waiting = PendingChanges()
        self._fetching = ModelDownloads(files, self._waiting, self.count_bytes)
        self._numbers = 0
        self._declared: object = None
        self.machine: Machine | None = None
        self.standing = StatusTracker(journal, stats)
        self.origin = Origin()
        self.listening: tuple[str, ...] = ()
        self._listening_desired: tuple[str, ...] = ()
        self.snapshot = self._empty()
        self.desired = self.snapshot.manifest
        self.overlay: Overlay = records.overlay()
        self.after: list[Callable[[Origin], None]] = []

    def _empty(self) -> Snapshot:
        manifest = Manifest.model_validate({"mullama": "v1"})
        return self._workshop(None).snapshot(manifest, {}, 0, None, resolve_access(manifest, 0, self._env))

    def _workshop(self, machine: Machine | None) -> DeploymentBuilder:
        return DeploymentBuilder(machine=machine, prefixes=self._records.prefix_folder)

    # Observing and planning

    async def observe(self, desired: Manifest, lock: Mapping[str, LockEntry], *, pruning: bool) -> Observed:
        """Facts about now, for a plan. pruning: look for files that may go, too."""
        self.machine = await asyncio.to_thread(observe_machine)
        applied = self.applied()
        manifests = [desired, *([applied.manifest] if applied else [])]
        files = await asyncio.to_thread(self._files.known, manifests, lock)
        root = self._records.folder.parent
        unneeded = await asyncio.to_thread(prunable, desired, root, self._files, lock) if pruning else ()
        return Observed(applied=applied, live=self.live(), files=files, machine=self.machine, unneeded=unneeded)

    def applied(self) -> Applied | None:
        """What is served, or, before anything is, what the last process of this instance had applied."""
        if self.snapshot.generation == 0:
            return last_applied(self._records)
        return Applied(
            generation=self.snapshot.generation, revision=self.snapshot.revision, manifest=self.snapshot.manifest
        )

    def live(self) -> dict[str, LiveModel]:
        """Each model as it is now."""
        return live_models(self.snapshot, self._pool, self.standing.failures)

    async def plan(self, tree: Mapping[str, Any], options: ApplyOptions) -> Line:
        desired = combine(parse_resolved(tree), self.overlay)
        lock = await asyncio.to_thread(read_lock, self.origin.path)
        return to_tree(make_plan(desired, await self.observe(desired, lock, pruning=True)))

    # Applying

    async def apply(
        self,
        tree: Mapping[str, Any],
        origin: Origin,
        options: ApplyOptions,
        change: Callable[[Overlay], Overlay] = lambda overlay: overlay,
    ) -> AsyncGenerator[Line, None]:
        """Run a change, after the one that runs now if any, and tell its progress.

        A reader that leaves does not stop it.
        """
        desired = parse_resolved(tree)
        # A change that runs now is waited for: it may be the watch of the very file that is applied, or one whose
        # command was killed. What it changed is seen by the plan, and `expect` refuses what has become stale.
        lines: asyncio.Queue[Line | MullamaError] = asyncio.Queue()
        task = asyncio.create_task(self._guarded(desired, origin, options, lines, change))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        while True:
            line = await lines.get()
            if isinstance(line, MullamaError):
                yield failure_line(line, self.snapshot)
                return
            yield line
            if line["event"] == "result":
                return

    async def _guarded(
        self,
        desired: Manifest,
        origin: Origin,
        options: ApplyOptions,
        lines: asyncio.Queue[Line | MullamaError],
        change: Callable[[Overlay], Overlay],
    ) -> None:
        try:
            result = await self.run(desired, origin, options, lines.put_nowait, change)
        except MullamaError as error:
            lines.put_nowait(error)
        except asyncio.CancelledError:
            lines.put_nowait(Unavailable("the server is stopping", hint="apply again: the next run continues"))
            raise
        except Exception as error:  # noqa: BLE001 - the reader must hear of a bug of ours, too
            traceback.print_exc()
            lines.put_nowait(Internal(f"{type(error).__name__}: {error}", hint="this is a bug; the log has more"))
        else:
            lines.put_nowait(result.tree())

    async def edit(self, change: Callable[[Overlay], Overlay], report: Callable[[Line], None]) -> Result:
        """Change the overlay, on the same road, after a change that runs now; a caller that leaves does not stop it."""
        options = ApplyOptions(trigger="api", by="overlay")
        task = asyncio.create_task(self.run(None, self.origin, options, report, change))
        self._runs.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Its failure is told by `_not_applied`, whether or not somebody still waits for it."""
        self._runs.discard(task)
        if not task.cancelled():
            task.exception()

    async def run(
        self,
        wanted: Manifest | None,
        origin: Origin,
        options: ApplyOptions,
        report: Callable[[Line], None],
        change: Callable[[Overlay], Overlay] = lambda overlay: overlay,
    ) -> Result:
        """Lock, observe, plan, guard, execute. Raises when it ended before its wish was applied.

        wanted: None for the manifest that is in force when its turn comes, whoever applied it meanwhile. Missing files
        are fetched without the lock, and then all of it is done again: see `_carry`.
        """
        made = self._change(wanted, origin, options, report, change)
        begun = time.monotonic()
        self.standing.begun(made.doing)
        try:
            return await self._carry(made)
        except OSError as error:
            failed = Unavailable(f"the state of this server cannot be written: {error}", hint="is the disk full?")
            self.standing.not_applied(failed)
            raise failed from error
        except BaseException as error:
            if not made.superseded:
                self.standing.not_applied(error)
            raise
        finally:
            self.standing.ended(made.doing, time.monotonic() - begun)

    def _change(
        self,
        wanted: Manifest | None,
        origin: Origin,
        options: ApplyOptions,
        report: Callable[[Line], None],
        edit: Callable[[Overlay], Overlay],
    ) -> Change:
        by = f" by {options.by}" if options.by else ""
        doing = f"{options.trigger}{by}, since {time.strftime('%H:%M:%S')}"

        def told(line: Line) -> None:
            self.standing.progressed(line, doing)
            report(line)

        self._numbers += 1
        return Change(
            number=self._numbers, wanted=wanted, origin=origin, options=options, tell=told, edit=edit, doing=doing
        )

    async def _carry(self, change: Change) -> Result:
        """One change at a time, except while files are fetched: a live edit must not wait for a download.

        A hot reload applies at once what needs no fetch. Any other change is applied as a whole or not at all.
        """
        while True:
            if self._busy.locked():
                change.tell({"event": "phase", "phase": "wait"})
            async with self._busy:
                self._waiting.require_newest(change)
                with self._records.lock(change.options.trigger):
                    draft = await self._draft(change)
                    if not draft.lacks:
                        result = await self._make_it_so(change, draft)
                        self._waiting.accept(change)
                        return result
                    if change.hot and self.snapshot.generation:
                        await self._meanwhile(change, draft)
                    elif not self.snapshot.generation:
                        await self._listen(draft.desired, draft.access)  # a server that fetches can be asked how it is
            try:
                await self._fetching.lacking(change, draft, self._effects(change, draft))
            except BaseException:
                await self._close_again()
                raise

    async def _draft(self, change: Change) -> PlannedChange:
        options = change.options
        manifest = self.desired if change.wanted is None else change.wanted
        origin = self.origin if change.wanted is None else change.origin
        overlay = change.edit(self.overlay)
        lock = await asyncio.to_thread(read_lock, origin.path)
        if options.locked:
            require_locked(manifest, lock)
        desired = combine(manifest, overlay)
        # Files go only when somebody asked to apply: never because a file was saved, or a server began.
        observed = await self.observe(desired, lock, pruning=options.trigger == "apply")
        plan = make_plan(desired, observed)
        if not change.fetched:
            change.tell({"event": "plan", "plan": to_tree(plan)})
            change.shown = frozenset(digest for digest, _ in observed.unneeded)
        access = await asyncio.to_thread(resolve_access, desired, plan.generation, self._env)
        lacks = {
            name for name in lacking(plan, desired, observed.files) if desired.models[name].from_ not in change.fetched
        }
        draft = PlannedChange(
            manifest=manifest,
            overlay=overlay,
            desired=desired,
            origin=origin,
            observed=observed,
            plan=plan,
            access=access,
            lock=lock,
            lacks=frozenset(lacks),
        )
        served = {name: deployment.model for name, deployment in self.snapshot.deployments.items()}
        ours = bool(change.fetched) or self._waiting.accepted(change)
        guard(draft, options, before=self.desired, served=served, ours=ours)
        return draft

    async def _make_it_so(self, change: Change, draft: PlannedChange) -> Result:
        plan = draft.plan
        if plan.empty and self.snapshot.generation:
            message = self._renew_keys(draft.access)
            result = Result(exit=DONE, message=message, generation=plan.generation - 1, revision=plan.desired)
        else:
            if change.options.trigger not in ("start", "watch"):
                self._pool.forgive()
            effects = self._effects(change, draft)
            result = await self._execute(plan, draft.desired, draft.access, effects, change.tell)
        self.desired, self.overlay = draft.manifest, beside(draft.manifest, draft.overlay)
        self._applied_now(result, draft.origin)
        await self._declare(draft)
        return result

    async def _declare(self, draft: PlannedChange) -> None:
        """Say in the cache what is needed of it; before `LEAST_GRACE` is over, no other server deletes it."""
        needed = frozenset(f.digest for f in draft.observed.files.values() if f.digest), frozenset(draft.lock)
        if needed != self._declared:
            await asyncio.to_thread(declare, self._records.folder.parent, self._files.index)
            self._declared = needed

    async def _meanwhile(self, change: Change, draft: PlannedChange) -> None:
        """Apply what can be served without the files that are still to come."""
        now = meanwhile(draft.manifest, self.desired, draft.lacks)
        desired = combine(now, draft.overlay) if now is not None else self.snapshot.manifest
        plan = without(make_plan(desired, draft.observed), draft.lacks)
        if now is not None and not plan.empty:
            access = await asyncio.to_thread(resolve_access, desired, plan.generation, self._env)
            # The digest of a file that is not applied yet would make the one who follows it believe that it is.
            origin = replace(draft.origin, digest="")
            part = replace(draft, manifest=now, desired=desired, origin=origin, plan=plan, access=access)
            await self._make_it_so(change, part)
        message = (
            f"revision {self.snapshot.generation} serves until the files of {', '.join(sorted(draft.lacks))} are here"
        )
        self.standing.waits(message)
        change.tell({"event": "waiting", "models": sorted(draft.lacks), "message": message})

    async def _close_again(self) -> None:
        """A server that could not fetch what it was to begin with answers nobody."""
        async with self._busy:
            if not self.snapshot.generation and not self._waiting.any():
                await self._listen_again(self._empty())

    @property
    def fetching(self) -> bool:
        """Whether a manifest waits for its files."""
        return bool(self._waiting.manifests())

    def under_way(self, desired: Manifest) -> bool:
        """Whether this very manifest is applied already but for models that wait for their files."""
        return self._waiting.in_part(revision(desired))

    async def _execute(
        self, plan: Plan, desired: Manifest, access: Access, effects: LiveEffects, report: Callable[[Line], None]
    ) -> Result:
        """What was opened, held or paused for a run that ends before its swap is taken back."""
        before = self.snapshot
        try:
            if before.generation == 0:  # so that a server that still loads can be asked how it is
                await self._listen(desired, access)
            return await execute(plan, desired, effects, report)
        except BaseException:
            effects.abandon()
            if self.snapshot.generation == before.generation:
                await self._listen_again(before)
            raise

    async def _listen(self, desired: Manifest, access: Access) -> None:
        """Open the wished listeners. The keys come first: no address is open for a moment without those it needs."""
        if desired.server.listen == self._listening_desired:
            return
        before = self.snapshot
        self.snapshot = replace(before, access=replace(access, generation=before.generation))
        try:
            self.listening = await self._listeners.change(desired.server.listen)
        except BaseException:
            self.snapshot = before
            raise
        self._listening_desired = desired.server.listen

    async def _listen_again(self, before: Snapshot) -> None:
        """Back to the listeners and keys of the snapshot that goes on serving."""
        listen = before.manifest.server.listen if before.generation else ()
        if self._listening_desired != listen:
            try:
                self.listening = await self._listeners.change(listen)
            except MullamaError as error:
                self.journal.add("not-listening", "", str(error))
                return
            self._listening_desired = listen
        self.snapshot = before

    async def reread_keys(self) -> str:
        """Secrets are references, so they can change while the manifest does not; what came of looking again."""
        async with self._busy:
            now = self.snapshot
            return self._renew_keys(await asyncio.to_thread(resolve_access, now.manifest, now.generation, self._env))

    def _renew_keys(self, access: Access) -> str:
        if access.keys == self.snapshot.access.keys:
            return "nothing to do"
        self.snapshot = replace(self.snapshot, access=replace(self.snapshot.access, keys=access.keys))
        self.journal.add("keys", "", "the secrets of the API keys were read again")
        return "nothing to do but new secrets of the API keys"

    def _effects(self, change: Change, draft: PlannedChange) -> LiveEffects:
        async def fetched(model: Model, report: Callable[[Line], None], name: str) -> KnownFiles:
            return await self._fetching.have(change, draft, model, report, name)

        async def pruning() -> None:
            root = self._records.folder.parent
            gone = await asyncio.to_thread(prune, draft.desired, root, self._files, draft.lock, change.shown)
            self.journal.add("pruned", "", f"{len(gone)} of {len(change.shown)} files")

        return LiveEffects(
            desired=draft.desired,
            old=self.snapshot,
            pool=self._pool,
            workshop=self._workshop(self.machine),
            fetch=fetched,
            machine=self.machine,
            access=draft.access,
            on_commit=lambda plan: self._commit(change, draft),
            on_prune=pruning,
            on_record=self._generations.ended,
            publish=self._publish,
            warn=lambda name, message: self.journal.note("warning", name, message),
        )

    def count_bytes(self, count: int) -> None:
        self.stats.pulled_bytes += count

    async def _commit(self, change: Change, draft: PlannedChange) -> None:
        """Listeners first: an address that is taken ends the run with nothing committed."""
        await self._listen(draft.desired, draft.access)
        self._generations.commit(change, draft)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def _applied_now(self, result: Result, origin: Origin) -> None:
        self.origin = origin
        self.standing.applied(result, self.snapshot.deployments)
        for told in self.after:
            try:
                told(origin)
            except OSError as error:
                self.journal.add("warning", "", f"what runs could not be recorded: {error}")

    # History

    def history(self) -> list[Line]:
        return self._generations.listed()

    async def undo(self, to: int | None) -> AsyncIterator[Line]:
        """The revision before the last, or the one named, applied as a new one."""
        desired, overlay = self._generations.back_to(to)
        options = ApplyOptions(trigger="undo", allow_empty=True)
        async for line in self.apply(block_to_tree(desired), self.origin, options, lambda now: overlay):
            yield line

    async def stop(self) -> None:
        """Let a running change end or be cut, then drain and unload."""
        for run in list(self._runs):
            run.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(300):
                await self._pool.stop()
        await self._pool.abort()

    # What a watched file did

    def invalid(self, error: MullamaError) -> None:
        """See `Standing.invalid`."""
        self.standing.invalid(error, self.origin, self.snapshot.generation)

    def held(self, removes: int, loaded: int) -> None:
        self.standing.held(removes, loaded, self.origin)

    def removals(self, desired: Manifest) -> tuple[int, int]:
        """(loaded models that this wish would unload, loaded models)."""
        return removals(desired, self.overlay, self.snapshot, self._pool)

    def is_applied(self, desired: Manifest) -> bool:
        return self.snapshot.generation > 0 and revision(combine(desired, self.overlay)) == self.snapshot.revision
