"""The reconciler: executes every change, whether from a start, a saved file, a signal, a request or `apply`.

A trigger carries no information: each run reads the current state, observes the machine and the store, and plans
again, so a lost or doubled trigger does no harm. One run executes at a time; a run that downloads gives up its turn.
A failure before the swap leaves the old snapshot serving, with the reason in the conditions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from types import MappingProxyType

from mullama.controller.api_keys import resolve_access
from mullama.controller.certificates import Certificates
from mullama.controller.current import Current, CurrentState
from mullama.controller.event_log import EventLog
from mullama.controller.fleet.lease_book import LeaseBook
from mullama.controller.fleet.rollout_book import RolloutBook
from mullama.controller.listeners import HttpListeners, Listeners
from mullama.controller.runs.change import (
    Change,
    Line,
    PlannedChange,
    check_surges,
    failure_line,
)
from mullama.controller.runs.downloads import ModelDownloads, author_of
from mullama.controller.runs.effects import LiveEffects, Services, checked
from mullama.controller.runs.history import History
from mullama.controller.runs.planner import Planner
from mullama.controller.runs.queue import PendingRuns, Run, RunQueue
from mullama.controller.runs.retries import Retries
from mullama.controller.runs.served_files import ServedFiles
from mullama.controller.status import StatusTracker
from mullama.errors import ModelUnavailable, MullamaError, Unavailable
from mullama.manifest.spec import Hardware, Manifest
from mullama.manifest.tree import revision
from mullama.plan.make import make_plan
from mullama.plan.observed import Machine
from mullama.plan.steps import Cause, Plan, to_tree
from mullama.plan.targets import require_undisturbed
from mullama.plan.tools import KIND as TOOLS
from mullama.plan.tools import server_of
from mullama.reconcile.execute import Outcome, Result, execute, prepare
from mullama.reconcile.files import Files, is_local
from mullama.reconcile.gc import declare
from mullama.reconcile.machine import observe_machine
from mullama.reconcile.overlay import combine, effective_entries
from mullama.reconcile.partial_apply import expendable, servable_part, without
from mullama.reconcile.pins import lock_digest, pins_of, read_lock, read_locked_tools
from mullama.reconcile.secrets import missing_secrets
from mullama.reconcile.tool_servers import open_server
from mullama.runtime.base import Access, ApplyOptions, Origin
from mullama.runtime.metrics import Metrics
from mullama.runtime.pool import Pool
from mullama.runtime.serving.build import DeploymentBuilder
from mullama.runtime.serving.early_load import early_choice
from mullama.runtime.tools.book import ToolBook
from mullama.runtime.tools.connection import Connect
from mullama.store.records import Records
from mullama.struct import replace

STOP_SECONDS = 300.0
"""The longest drain of a stop. It exceeds any reasonable `drain_timeout`; then the workers are killed."""

_ASKING = ("apply", "undo")
"""Triggers of a person who saw the plan: the servers of tools are asked before it, and their changes accepted."""


class Reconciler:
    """Plans and executes changes. All methods belong to the event loop."""

    def __init__(
        self,
        *,
        records: Records,
        pool: Pool,
        files: Files,
        http: HttpListeners,
        env: Mapping[str, str],
        event_log: EventLog,
        metrics: Metrics,
        observe_machine: Callable[[Hardware], Machine] = observe_machine,
        connect: Connect = open_server,
    ) -> None:
        self._records, self._pool, self._files, self._env = records, pool, files, env
        self._event_log = event_log
        self.status = StatusTracker(event_log, metrics)
        self.state = CurrentState(_nothing_applied(records, env))
        self.leases = LeaseBook(records)
        self.rollouts = RolloutBook(records)
        self.history = History(records, lambda message: event_log.note("warning", "", message))
        self._pending = PendingRuns()
        self.downloads = ModelDownloads(files, self._pending, metrics)
        self.certificates = Certificates(
            lambda tls, drain: http.renew(tls, drain=drain), self.status.conditions, event_log
        )
        self.tools = ToolBook(
            lambda: self.current.snapshot.manifest, env, records, event_log.note, self._tools_changed, connect=connect
        )
        self.served_files = ServedFiles(self.state, files, pool)
        self.planner = Planner(
            state=self.state, status=self.status, records=records, files=files, served_files=self.served_files,
            pool=pool, tools=self.tools, observe_machine=observe_machine,
        )  # fmt: skip
        self._tool_renewals: set[asyncio.Task[None]] = set()
        self._listeners = Listeners(http, self.state, event_log, self.certificates)
        self._services = Services(
            records=records, files=files, pool=pool, state=self.state, listeners=self._listeners,
            downloads=self.downloads, history=self.history, event_log=event_log, pending=self._pending,
            tools=self.tools,
        )  # fmt: skip
        self._queue = RunQueue(self._run, self.status)
        self.retries = Retries(self.state, event_log, fetch=self._fetch_unavailable, serve=self._serve_fetched)
        self.state.subscribers.append(lambda _: self.retries.follow())
        self._lock = asyncio.Lock()
        pool.renew = self._renew
        self._declared: object = None
        self._lock_read: tuple[str | None, str] | None = None  # the manifest of the last run, and its `lock_digest`

    @property
    def current(self) -> Current:
        return self.state.value

    # Entry points

    def start(self, change: Change) -> asyncio.Task[Result]:
        """Begin a run of this change after the one that runs now. It continues when its reader leaves."""
        return self._queue.start(change)

    async def apply(self, change: Change) -> AsyncGenerator[Line, None]:
        """Run a change and yield its progress; the last line is the result. A reader that leaves does not stop it."""
        # A run in progress is not refused: it may come from the watch of the very file that is applied, or from a
        # command that was killed. This run plans after it, and `expect` refuses a plan that became stale.
        if change.options.trigger in _ASKING:
            await self.tools.refresh()
        task = self.start(change)
        async with aclosing(change.progress.follow(task)) as lines:
            async for line in lines:
                yield line
        snapshot = self.current.snapshot
        if task.cancelled():
            stopping = Unavailable("the server is stopping", hint="apply again: the next run continues")
            yield failure_line(stopping, snapshot)
        elif isinstance(error := task.exception(), MullamaError):
            yield failure_line(error, snapshot)
        else:
            yield task.result().tree()

    async def plan(self, change: Change) -> Plan:
        """Return the plan that an apply of this change would carry out now; raise as `preview`."""
        return (await self.preview(change)).plan

    async def preview(self, change: Change, *, asks: bool = True) -> PlannedChange:
        """Return the change with the plan that an apply of it would carry out now.

        asks: list the tools of servers first; else those of the last list count.

        Raises what the options of the change forbid, as an apply would: a stale plan, an empty manifest, a source
        that is not locked, and, offline, a source that is not stored. A plan for protected models is returned.
        """
        if asks:
            await self.tools.refresh()
        planned = await self.planner.plan(change)
        self.planner.check_options(change, planned)
        if change.options.offline:
            await asyncio.to_thread(self.planner.require_stored, planned)
        if missing := await asyncio.to_thread(missing_secrets, planned.desired, self._env):
            return replace(planned, plan=replace(planned.plan, warnings=(*planned.plan.warnings, *missing)))
        return planned

    async def drift(self) -> Plan:
        """Return the steps from the observed state to the applied revision; the file of the manifest is not read."""
        await self.tools.refresh()
        planned = await self.planner.plan(Change(desired=None, options=ApplyOptions(trigger="drift")))
        steps = tuple(step for step in planned.plan.steps if step.cause is Cause.DRIFT)
        return replace(planned.plan, desired=planned.plan.base, steps=steps)

    async def refresh(self) -> Plan:
        """Record the files of the served models as they are now and return the drift. No model is changed.

        The digests of changed files are computed. A file with the same bytes, as after a copy, is no drift then.
        """
        async with self._lock:
            with self._records.lock("refresh"):
                paths = set(await self.served_files.look())
                await asyncio.to_thread(self._files.hash, sorted(paths))
                await self.served_files.restamp(self.served_files.models_of(paths))
                plan = await self.drift()
        names = ", ".join(step.subject for step in plan.steps)
        self._event_log.add("refreshed", "", f"drift: {names or 'none'}")
        return plan

    async def refresh_keys(self) -> str:
        """Read the secrets of the API keys again and return a sentence about the outcome.

        Keys are references, so their secrets can change while the manifest does not.
        """
        async with self._lock:
            now = self.current.snapshot
            access = await asyncio.to_thread(resolve_access, now.manifest, now.generation, self._env)
            self.status.absent_keys = ()
            return self._renew_keys(access)

    async def _renew(self, names: tuple[str, ...]) -> None:
        """Describe the files of models again, which changed on disk, and swap in what they are now.

        Raises for files that must not be served: another digest than the pinned one, a damaged header.
        """
        change = Change(desired=None, options=ApplyOptions(trigger="drift"), only=frozenset(names))
        result = await asyncio.shield(self.start(change))
        if failed := next((result.failures[name] for name in names if name in result.failures), None):
            raise failed.cause if isinstance(failed, ModelUnavailable) else failed
        async with self._lock:
            await self.served_files.restamp(names)

    async def renew_files(self, paths: Collection[str]) -> None:
        """Serve the models of these files as they are now: they changed on disk, or are back after a change.

        Raises the reason for which one cannot be served.
        """
        names = self.served_files.models_of(paths)
        if names:
            await self._renew(names)
        for name in names:
            self._pool.retry(name)

    async def stop(self) -> None:
        """Cancel all runs, then drain and unload."""
        self.retries.cancel()
        for task in self._tool_renewals:
            task.cancel()
        self._queue.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._pool.stop()
        await self._pool.abort()
        await self.tools.close()

    # For the manifest watcher

    def manifest_invalid(self, error: MullamaError) -> None:
        """Note that the file cannot be used; the last good revision keeps serving."""
        self.status.invalid(error, self.current.origin, self.current.snapshot.generation)

    @property
    def waiting(self) -> bool:
        """True while a manifest waits for its files or loads."""
        return bool(self._pending.manifests) or self._queue.loading is not None

    async def lock_changed(self) -> bool:
        """Return True when the lock file beside the applied manifest differs from the one that the last run has read.

        Raises for a changed lock file that cannot be read.
        """
        file = self.current.origin.file
        if (file, await asyncio.to_thread(lock_digest, file)) == self._lock_read:
            return False
        await asyncio.to_thread(lambda: (read_lock(file), read_locked_tools(file)))
        return True

    def applied_in_part(self, manifest: Manifest) -> bool:
        """True when this manifest is applied except for models that wait for their files or loads."""
        wanted = revision(manifest)
        return self._pending.applied_in_part(wanted) or self._queue.loading == wanted

    # A run

    async def _run(self, run: Run) -> Result:
        try:
            return await self._reconcile(run)
        finally:
            if run.change.options.trigger == "start":
                await self._pool.end_early_load()

    async def _reconcile(self, run: Run) -> Result:
        """Lock, plan, check and execute; download without the lock and plan again. Raises if nothing was applied."""
        while True:
            self._pending.require_current(run)
            if self._lock.locked():
                run.report({"event": "phase", "phase": "wait"})
            # Lock order: first the asyncio lock, which lets the runs of this process wait for each other, then the
            # file lock, which does not wait: it raises `Conflict` if another process writes to this instance. Taken
            # the other way round, two runs of this process would refuse each other.
            async with self._lock:
                self._pending.require_current(run)
                with self._records.lock(run.change.options.trigger):
                    planned = await self._plan_run(run)
                    await run.save()
                    self._load_early(run, planned)
                    if not planned.missing and run.change.options.prepare:
                        return await self._prepare(run, planned)
                    if not planned.missing:
                        result = await self._apply_planned(run, planned)
                        self._pending.accept(run)
                        if not result.overtaken:
                            return result
                    elif run.change.applies_in_part and self.current.started:
                        await self._apply_in_part(run, planned)
                    elif not run.change.awaits_files:
                        run.superseded = True
                        raise Unavailable(f"the files of {', '.join(sorted(planned.missing))} are not here yet")
                    elif not self.current.started:
                        # A first run may download for hours; the status of the server must be reachable by then.
                        await self._listeners.open(planned.desired, planned.access)
            if not planned.missing:
                await run.let_pass()
                continue
            # Both locks are free during the download, so a live edit does not wait for it. The state may have changed
            # after it, so the loop plans anew; a newer manifest cancels the download or is found above.
            try:
                await self.downloads.fetch_missing(run, planned, LiveEffects(self._services, run, planned))
            except BaseException:
                await self._close_unstarted()
                raise

    def _starts(self, run: Run) -> bool:
        return run.change.options.trigger == "start" and not self.current.started

    def _load_early(self, run: Run, planned: PlannedChange) -> None:
        """Begin to load the first model of a start before its files are verified and checked."""
        if self._starts(run) and (run.change.awaits_files or not planned.missing):
            builder = self._builder(planned.observed.machine)
            if early := early_choice(planned.desired, planned.observed, planned.missing, builder):
                self._pool.load_early(*early)

    def _builder(self, machine: Machine | None) -> DeploymentBuilder:
        return DeploymentBuilder(
            machine=machine, prefixes=self._records.prefix_folder, memory=self._records.memory_folder,
            tools=self.tools.prompt_of,
        )  # fmt: skip

    async def _plan_run(self, run: Run) -> PlannedChange:
        """Plan a run, report the plan once, and raise if it must not be applied."""
        await self.leases.admit(run.change.options.fence)  # here, because a run that downloads plans again
        change, options = run.change, run.change.options
        file = (self.current.origin if change.desired is None else change.origin).file
        digest = await asyncio.to_thread(lock_digest, file)
        planned = await self.planner.plan(change)
        if change.only is None and not options.targets and not options.prepare:
            self._lock_read = file, digest
        plan, desired = planned.plan, planned.desired
        if not run.planned:
            run.planned = True
            run.report({"event": "plan", "plan": to_tree(plan)})
            run.prunable = frozenset(digest for digest, _ in planned.observed.unneeded)
        applied = planned.observed.applied if self._starts(run) else None
        access = await self._access(run.change, planned, restart=applied is not None)
        self.planner.check_options(run.change, planned, moved=bool(run.fetched) or self._pending.accepted(run))
        check_surges(plan)
        if plan.targets:
            require_undisturbed(planned.manifest, planned.origin.path)
        self.planner.check_protected(plan, planned.observed)
        models, fetched = desired.models, run.fetched
        missing = frozenset(name for name in planned.missing if not fetched.issuperset(models[name].all_sources))
        spared = expendable(plan, desired, applied.manifest if applied is not None else None) | run.change.added
        spared = frozenset() if run.change.options.prepare else spared
        planned = replace(planned, access=access, missing=missing, expendable=spared)
        return planned if run.change.waits_for_unchanged else self._without_waiting(run, planned)

    def _without_waiting(self, run: Run, planned: PlannedChange) -> PlannedChange:
        """Return the plan of a run that does not wait for the files of models that it does not change.

        A model that this server knows keeps its state; at a start, it is unavailable until its files are fetched.
        Files of this machine take no wait: an attempt gives the reason why they cannot be used.
        """
        spared = planned.missing & planned.expendable
        known = spared & self.current.snapshot.deployments.keys()
        remote = {name for name in spared - known if not all(map(is_local, planned.desired.models[name].all_sources))}
        pending = ModelUnavailable(Unavailable("its files are being fetched"), pending=True)
        run.unavailable |= dict.fromkeys(remote, pending)
        return replace(planned, plan=without(planned.plan, known), missing=planned.missing - known - remote)

    async def _access(self, change: Change, planned: PlannedChange, *, restart: bool) -> Access:
        """Return the keys of the desired manifest. At a restart, a key without its secret is left out.

        A change of the overlay does not read the secrets again.
        """
        current, generation = self.current, planned.plan.generation
        if change.desired is None and current.started:
            return replace(current.snapshot.access, manifest=planned.desired, generation=generation)
        absent: list[MullamaError] | None = [] if restart else None
        access = await asyncio.to_thread(resolve_access, planned.desired, generation, self._env, absent)
        self.status.absent_keys = tuple(str(error) for error in absent or ())
        for text in self.status.absent_keys:
            self._event_log.note("warning", "", text)
        return access

    async def _prepare(self, run: Run, planned: PlannedChange) -> Result:
        """Check the files of a plan, which are all here, and change nothing. Raises what an apply would."""
        effects = LiveEffects(self._services, run, planned)
        try:
            await prepare(planned.plan, planned.desired, effects, run.report)
        finally:
            effects.abandon()
        now = self.current.snapshot
        return Result(
            outcome=Outcome.APPLIED, message="all files are here", generation=now.generation, revision=now.revision
        )

    async def _apply_planned(self, run: Run, planned: PlannedChange) -> Result:
        plan = planned.plan
        waits = bool(self._services.begun) and run.change.desired is not None
        if plan.empty and self.current.started and not waits:
            message = self._renew_keys(planned.access)
            result = Result(
                outcome=Outcome.APPLIED, message=message, generation=self.current.snapshot.generation,
                revision=plan.desired,
            )  # fmt: skip
            if plan.targets:
                return result
            # Not swapped by the effects, but the manifest may differ in ways that need no step.
            overlay = effective_entries(planned.manifest, planned.overlay)
            self.state.update(manifest=planned.manifest, overlay=overlay, origin=planned.origin)
        else:
            if run.change.options.trigger not in ("start", "watch", "drift"):
                self._pool.clear_attempts()
            if not self.current.started:  # the servers of tools are asked while the models load
                self.tools.follow(planned.desired, planned.tool_pins)
            result = await self._execute(run, planned)
        self.status.applied(result, self.current.snapshot.deployments, valid=run.change.proves_valid)
        self.tools.follow(self.current.snapshot.manifest, planned.tool_pins)
        if run.change.options.trigger in _ASKING:
            self.tools.accept([server_of(step) for step in plan.steps if step.kind == TOOLS])
            await self.tools.first_look()  # so that the next request has the tools of new servers
        self._tell(planned.origin)
        await self._declare_references(planned)
        return result

    def _tools_changed(self) -> None:
        """Compute the declared beginnings of prompts again: they contain the tools of models."""
        task = asyncio.create_task(self._renew_tools(), name="tools of models")
        self._tool_renewals.add(task)
        task.add_done_callback(self._tool_renewals.discard)

    async def _renew_tools(self) -> None:
        async with self._lock:
            current, builder = self.current, self._builder(self.current.machine)
            known = dict(current.snapshot.deployments)
            made = await asyncio.to_thread(lambda: {name: builder.with_tools(d) for name, d in known.items()})
            others = {d.unit: d for name, d in made.items() if d is not known[name]}
            if not others:
                return
            self.state.update(snapshot=replace(current.snapshot, deployments=MappingProxyType(made)))
            for owner in others.values():
                try:
                    await self._pool.retune(builder.joined(owner, made.values()))
                except MullamaError as error:
                    self._event_log.note("warning", owner.name, str(error), (owner.name,))

    def comes_from(self, origin: Origin) -> None:
        """Note another origin whose manifest is the applied one."""
        self.state.update(origin=origin)
        self._tell(origin)

    def _tell(self, origin: Origin) -> None:
        for callback in self.state.subscribers:
            try:
                callback(origin)
            except OSError as error:
                self._event_log.add("warning", "", f"the running server could not be recorded: {error}")

    async def _execute(self, run: Run, planned: PlannedChange) -> Result:
        """Execute the plan. On a failure before the swap, undo pins, pauses, listeners and keys."""
        before = self.current.snapshot
        effects = LiveEffects(self._services, run, planned)
        try:
            if before.generation == 0:  # the status must be reachable while the first models load
                await self._listeners.open(planned.desired, planned.access)
            return await execute(planned.plan, planned.desired, effects, run.report, expendable=planned.expendable)
        except BaseException:
            effects.abandon()
            if self.current.snapshot.generation == before.generation:
                await self._listeners.restore(before)
            raise

    async def _apply_in_part(self, run: Run, planned: PlannedChange) -> None:
        """Apply what can be served without the missing files."""
        current, missing = self.current, planned.missing
        partial = servable_part(planned.manifest, current.manifest, missing)
        desired = combine(partial, planned.overlay) if partial is not None else current.snapshot.manifest
        plan = without(make_plan(desired, planned.observed), missing)
        if partial is not None and not plan.empty:
            access = await asyncio.to_thread(resolve_access, desired, plan.generation, self._env)
            # Without its digest: the watcher compares digests, and would take the file for applied completely.
            origin = replace(planned.origin, digest="")
            part = replace(planned, manifest=partial, desired=desired, origin=origin, plan=plan, access=access)
            await self._apply_planned(run, part)
        names = ", ".join(sorted(missing))
        message = f"revision {self.current.snapshot.generation} serves until the files of {names} are downloaded"
        self.status.waiting(message)
        run.report({"event": "waiting", "models": sorted(missing), "message": message})

    async def _fetch_unavailable(self, name: str) -> None:
        """Fetch and check the files of an unavailable model. Raises when they cannot be used."""
        current = self.current
        desired, machine = current.snapshot.manifest, current.machine
        lock = await asyncio.to_thread(pins_of, current.manifest, current.origin.file)
        author = author_of(name, current.overlay, ApplyOptions(trigger="retry"))
        files = await self.downloads.get(desired, lock, name, self.status.write, offline=False, author=author)
        builder = self._builder(machine)
        await asyncio.to_thread(checked, builder, self._files, name, desired.models[name], files, desired, lock)

    async def _serve_fetched(self, name: str) -> None:
        """Serve the models whose files are here now; `name` is one of them."""
        options = ApplyOptions(trigger="retry", by=name)
        await asyncio.shield(self.start(Change(desired=None, options=options)))

    async def _close_unstarted(self) -> None:
        """Close the listeners of a server whose first download failed, unless another run still waits."""
        async with self._lock:
            if not self.current.started and self._pending.empty:
                await self._listeners.restore(_nothing_applied(self._records, self._env).snapshot)

    def _renew_keys(self, access: Access) -> str:
        snapshot = self.current.snapshot
        if access.keys == snapshot.access.keys:
            return "nothing to do"
        self.state.update(snapshot=replace(snapshot, access=replace(snapshot.access, keys=access.keys)))
        self._event_log.add("keys", "", "the secrets of the API keys were read again")
        return "only the secrets of the API keys changed"

    async def _declare_references(self, planned: PlannedChange) -> None:
        """Record the referenced files in the store, before another server's prune could delete them.

        A prune spares files younger than `gc.LEAST_GRACE`, which exceeds the time from a download to this call.
        """
        digests = frozenset(files.digest for files in planned.observed.files.values() if files.digest)
        referenced = digests, frozenset(planned.lock)
        if referenced != self._declared:
            await asyncio.to_thread(declare, self._records.folder.parent, self._files.index)
            self._declared = referenced


def _nothing_applied(records: Records, env: Mapping[str, str]) -> Current:
    """Return the state before the first apply: an empty manifest, the stored overlay, no listeners."""
    manifest = Manifest.model_validate({"mullama": "v1"})
    builder = DeploymentBuilder(machine=None, prefixes=records.prefix_folder)
    snapshot = builder.snapshot(manifest, {}, 0, None, resolve_access(manifest, 0, env))
    return Current(manifest=manifest, overlay=records.overlay(), snapshot=snapshot)
