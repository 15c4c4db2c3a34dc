"""The pool of workers and contexts: feeds events to the scheduler, performs its commands and hands out leases."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from mullama.engines.base import ContextFacts, ContextOptions, EngineChoice
from mullama.errors import (
    EngineFailed,
    Kind,
    MullamaError,
    Refused,
    Unavailable,
)
from mullama.plan.make import changed_on_disk
from mullama.runtime.attempts import Attempts
from mullama.runtime.quarantine import Quarantine
from mullama.runtime.scheduler import events as ev
from mullama.runtime.scheduler.decide import decide
from mullama.runtime.scheduler.events import UnitKey
from mullama.runtime.scheduler.room import Amounts, over_budget, used
from mullama.runtime.scheduler.state import Phase, State, failure
from mullama.runtime.scheduler.wants import only_room, wanted
from mullama.runtime.scheduler.wording import describe
from mullama.runtime.snapshot import Deployment
from mullama.runtime.worker.cores import CoreAllocator
from mullama.runtime.worker.hosts import failure as lost_host_failure
from mullama.runtime.worker.loads import EarlyLoad, RunningLoad
from mullama.runtime.worker.parent import USUAL_LIMITS, WorkerClient
from mullama.runtime.worker.process import Death, DeathCause, HostLost, OutOfResources
from mullama.runtime.worker.spare import SpareWorker
from mullama.runtime.worker.spawn import SpawnedWorker, SpawnWorker, spawn_worker
from mullama.runtime.worker.watchdog import StallLimits
from mullama.store.index import changed
from mullama.struct import Struct, field, replace

_log = logging.getLogger("mullama.scheduler")

_RETRY_DEATH = 2.0  # seconds; a worker is usually restarted by then


class Lease(Struct, kw_only=True, eq=False):
    """The right of one request to use a loaded model, until the `async with` block of `Pool.lease` ends."""

    id: int
    worker: WorkerClient
    unit: UnitKey
    asked: float
    """Monotonic seconds of its request for a place."""
    load_seconds: float
    """Seconds that the request waited for its place, with the load of the model."""
    opened_at: float = 0.0
    """Monotonic seconds when the context of the model was opened."""
    cancelled: bool = False
    _on_cancel: Callable[[], None] | None = None

    @property
    def context(self) -> str:
        return self.unit.context

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Call `action` when a drain deadline ends the request; at once if it has passed."""
        self._on_cancel = action
        if self.cancelled:
            action()

    def cancel(self) -> None:
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()


class _Unit(Struct, kw_only=True):
    """The options with which a unit is opened, and the facts of the open context."""

    choice: EngineChoice
    options: ContextOptions
    stamps: Mapping[str, str] = field(default_factory=dict)
    """The states of the files of the weights for which the key holds; see `store.index.stamp`."""
    adapter_stamps: Mapping[str, str] = field(default_factory=dict)
    facts: ContextFacts | None = None


class Note(Protocol):
    """Receives what happens, for the event log. models: those that it is about."""

    def __call__(self, kind: str, subject: str, message: str, models: Sequence[str] = (), /) -> None: ...


Renew = Callable[[tuple[str, ...]], Awaitable[None]]
"""Describes the files of these models again, which changed on disk, and swaps in the new units.

Raises for files that must not be served, such as those with another digest than the pinned one.
"""


class Pool:
    """Workers and contexts of this machine. All methods belong to one event loop."""

    def __init__(
        self,
        note: Note = lambda kind, subject, message, models=(): None,
        attempts: Attempts | None = None,
        limits: StallLimits = USUAL_LIMITS,
        spawn: SpawnWorker = spawn_worker,
    ) -> None:
        self.state = State()
        self.limits = limits
        self._note = note
        self._spawn_worker = spawn
        self._attempts = attempts or Attempts()
        self._units: dict[UnitKey, _Unit] = {}
        self._workers: dict[str, WorkerClient] = {}
        self._cores = CoreAllocator()
        self._grants: dict[int, asyncio.Future[UnitKey]] = {}
        self._leases: dict[int, Lease] = {}
        self._cancelled_early: set[int] = set()  # see `_perform`
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._pins: dict[UnitKey, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.spare = SpareWorker(self._make_worker, spawn)
        self._early: EarlyLoad | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self._changed = asyncio.Event()
        self._loads: dict[str, RunningLoad] = {}  # by weights
        self.renew: Renew | None = None
        self.crashes = 0
        self.quarantine = Quarantine()

    def load_early(self, choice: EngineChoice, stamps: Mapping[str, str]) -> None:
        """Begin an early load; see `EarlyLoad`. stamps: the states of the files now.

        It does nothing without a spare worker, next to other weights, and after a load that ended the server.
        """
        busy = self._early is not None or self._workers or self._loads or self.state.stopping
        if busy or self.spare.task is None or not self._attempts.begin_early():
            return
        self._early = EarlyLoad(choice, stamps, self.spare)

    async def _take_early(self, weights: str, known: _Unit, died: Callable[[Death], None]) -> WorkerClient | None:
        """Return the worker that has loaded the weights early; None for other weights, or when it failed to."""
        early = self._early
        if early is None or not early.is_of(known.choice, known.stamps):
            await self.end_early_load()
            return None
        self._early = None
        if early.running is not None:
            self._loads[weights] = early.running
        return await early.take(died)

    async def end_early_load(self) -> None:
        """End an early load that no unit has taken over."""
        early, self._early = self._early, None
        if early is None:
            return
        await early.end()
        self._attempts.finish(Attempts.EARLY)
        self._renew_spare()

    def _renew_spare(self) -> None:
        if not self.state.stopping:
            self.spare.renew()

    def _make_worker(
        self, died: Callable[[Death], None], spawn: Callable[[], SpawnedWorker]
    ) -> Awaitable[WorkerClient]:
        return WorkerClient.spawn(died, self._cores, self.limits, spawn)

    # For requests

    @contextlib.asynccontextmanager
    async def lease(
        self, model: str, priority: int, *, alone: bool = False, falls_back: bool = False
    ) -> AsyncIterator[Lease]:
        """Wait for a place and keep it inside the block. Raises the scheduler's refusal.

        alone, falls_back: see `scheduler.events.Request`.
        """
        loop = asyncio.get_running_loop()
        self._number += 1
        number, arrived = self._number, loop.time()
        grant: asyncio.Future[UnitKey] = loop.create_future()
        self._grants[number] = grant
        try:
            self._feed(ev.Request(id=number, model=model, priority=priority, alone=alone, falls_back=falls_back))
            unit = await grant
            lease = Lease(
                id=number, worker=self._worker(unit), unit=unit, asked=arrived, load_seconds=loop.time() - arrived,
                opened_at=self.state.units[unit].opened_at,
            )  # fmt: skip
            lease.cancelled = number in self._cancelled_early
            self._leases[number] = lease
            yield lease
        finally:
            self._grants.pop(number, None)
            self._leases.pop(number, None)
            self._cancelled_early.discard(number)
            self._feed(ev.Leave(id=number))

    def _worker(self, unit: UnitKey) -> WorkerClient:
        worker = self._workers.get(unit.weights)
        if worker is None:
            raise EngineFailed("the worker ended before the request began", retry_after=1.0)
        return worker

    def keep_alive(self, model: str, seconds: float) -> None:
        """Keep a model loaded for so long after each request from now on; a negative time keeps it for good."""
        self._feed(ev.SetTtl(model=model, seconds=ev.FOREVER if seconds < 0 else seconds))

    def unload(self, model: str, *, forced: bool) -> None:
        """Unload a model when it is idle; a load ends at once. forced: see `scheduler.events.SetTtl`."""
        self._feed(ev.SetTtl(model=model, seconds=0.0, forced=forced, ends_load=True))

    def prepares(self, model: str) -> bool:
        """Return True while the reconciler waits for a unit of this model."""
        return any(u.pinned and not u.settled and u.pinned_for == model for u in self.state.units.values())

    # For the reconciler

    async def prepare(self, deployment: Deployment) -> ContextFacts | None:
        """Open and pin the deployment's unit while others run. Raises when it fails to open."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.adopt(deployment)
        self._pins.setdefault(deployment.unit, []).append(future)
        self._feed(ev.Pin(serve=deployment.serve))
        await future
        return self._units[deployment.unit].facts

    def adopt(self, deployment: Deployment) -> None:
        """Set the options with which the unit will be opened."""
        known = self._units.get(deployment.unit)
        self._units[deployment.unit] = _Unit(
            choice=deployment.choice, options=deployment.options, stamps=deployment.files.stamps,
            adapter_stamps=deployment.adapter_stamps, facts=known.facts if known else None,
        )  # fmt: skip

    def widen(self, rules: ev.Rules) -> None:
        """Let models that are prepared for these rules use their memory: until the swap, the larger bounds hold.

        A lowered bound takes effect with the swap.
        """
        self._feed(ev.SetBounds(rules=self.state.rules.widened(rules)))

    def bound(self, rules: ev.Rules) -> None:
        """Return to the memory bounds of the served rules, after a change that was not swapped in."""
        self._feed(ev.SetBounds(rules=rules))

    def release(self, unit: UnitKey) -> None:
        """Unpin a prepared unit."""
        self._feed(ev.Unpin(unit=unit))

    def swap(self, models: Mapping[str, ev.Serve], rules: ev.Rules, moved: Mapping[str, str] | None = None) -> None:
        """Make names lead to these units from now on. Units without a name drain and close."""
        self._feed(ev.Swap(models=models, rules=rules, moved=moved or {}))
        self._units = {key: unit for key, unit in self._units.items() if key in self.state.units}

    async def retune(self, deployment: Deployment) -> None:
        """Apply the live options to an open unit: threads, adapter scales, declared prefixes."""
        self.adopt(deployment)
        unit = self.state.units.get(deployment.unit)
        worker = self._workers.get(deployment.unit.weights)
        if worker is None or unit is None or unit.phase is not Phase.READY:
            return
        options = deployment.options
        scales = tuple(adapter.scale for adapter in options.adapters)
        await worker.retune_context(deployment.unit.context, threads=options.threads, scales=scales)
        tokens = await worker.declare_prefixes(deployment.unit.context, options.prefixes)
        known = self._units.get(deployment.unit)
        if known is not None and known.facts is not None:
            known.facts = replace(known.facts, prefix_tokens=tokens)

    def pause(self, model: str) -> None:
        self._feed(ev.Pause(model=model))

    def resume(self, model: str) -> None:
        self._feed(ev.Resume(model=model))

    def retry(self, model: str) -> None:
        """Forget the failures of a model."""
        self._feed(ev.Retry(model=model))

    def clear_attempts(self) -> None:
        """Allow weights that ended the server before."""
        self._attempts.clear()

    async def closed(self, unit: UnitKey) -> None:
        """Wait until the unit is closed and its worker, unless other units need it, has stopped."""
        while (found := self.state.units.get(unit)) and found.phase is not Phase.COLD:
            await self._changed.wait()
        while (worker := self.state.workers.get(unit.weights)) and worker.phase is Phase.CLOSING:
            await self._changed.wait()

    async def stop(self) -> None:
        """Admit nothing new, let requests finish within their drain time, and stop every worker."""
        self._feed(ev.Stop())
        for start in self._starts.values():
            start.cancel()
        while any(w.phase is not Phase.COLD for w in self.state.workers.values()):
            await self._changed.wait()
        await self.abort()

    async def abort(self) -> None:
        """Kill every worker."""
        self._feed(ev.Stop())  # else the scheduler would start the killed workers again
        if self._timer is not None:
            self._timer.cancel()
        await self.end_early_load()
        await self.spare.end()
        await asyncio.gather(*(worker.kill() for worker in self._workers.values()), return_exceptions=True)
        for task in self._tasks:
            if not task.cancelling():  # a second cancellation would end the wait for the process that is being killed
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # For status

    def phase(self, unit: UnitKey) -> Phase:
        found = self.state.units.get(unit)
        return found.phase if found else Phase.COLD

    def opens(self, unit: UnitKey) -> bool:
        """Return True for a unit that is not open and is wanted: it opens, or waits for its worker or for room.

        One that nothing needs may wait for room as long as others are loaded; it only counts once it is begun.
        """
        found = self.state.units.get(unit)
        if found is None or found.phase not in (Phase.COLD, Phase.OPENING):
            return False
        if found.phase is Phase.COLD and only_room(self.state, unit):
            return self.state.workers[unit.weights].phase is Phase.OPENING
        return wanted(self.state, unit, asyncio.get_running_loop().time())

    async def until_opening(self) -> None:
        """Wait for the next context that a worker opens, during which this process has little to do."""
        while not any(unit.phase is Phase.OPENING for unit in self.state.units.values()):
            await self._changed.wait()

    def unloaded(self, unit: UnitKey) -> bool:
        """Return True for a unit that a client unloaded, and that no request has asked for since."""
        found = self.state.units.get(unit)
        return found is not None and found.unloaded

    @property
    def over_budget(self) -> tuple[int, int] | None:
        """The bytes in memory and the budget, when a lowered budget is exceeded by models that stay loaded or work."""
        if self.state.rules.budget is None or not over_budget(self.state):
            return None
        return used(self.state), self.state.rules.budget

    @property
    def memory_on(self) -> Mapping[str, int]:
        """The bytes of the models in memory on each device, and in main memory by the name ""."""
        return Amounts.of([*self.state.live_workers.values(), *self.state.live_units.values()]).places

    def failure(self, model: str) -> MullamaError | None:
        return failure(self.state, model)

    def context_facts(self, unit: UnitKey) -> ContextFacts | None:
        known = self._units.get(unit)
        return known.facts if known and self.phase(unit) is Phase.READY else None

    @property
    def changed(self) -> asyncio.Event:
        """The event that the next change of the live state sets."""
        return self._changed

    def worker(self, unit: UnitKey) -> WorkerClient | None:
        return self._workers.get(unit.weights)

    def load(self, unit: UnitKey) -> RunningLoad | None:
        """Return the load that runs for the weights of a unit."""
        return self._loads.get(unit.weights)

    def pids(self) -> tuple[int, ...]:
        """Return the processes of all workers, also of those that load."""
        loading = [load.worker for load in self._loads.values()]
        return tuple(worker.pid for worker in (*self._workers.values(), *loading))

    # Commands

    def _feed(self, event: ev.Event) -> None:
        """Let the scheduler decide on an event, perform its commands and wake the waiters for a change."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        commands = decide(self.state, event, now)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", describe(self.state, event, commands, now))
        for command in commands:
            self._perform(command)
        self._changed.set()
        self._changed = asyncio.Event()

    def _perform(self, command: ev.Command) -> None:
        match command:
            case ev.StartWorker(weights=weights):
                self._starts[weights] = self._create_task(self._start(weights))
                self._starts[weights].add_done_callback(functools.partial(self._start_ended, weights))
            case ev.StopWorker(weights=weights):
                if start := self._starts.get(weights):
                    start.cancel()
                else:
                    self._spawn(self._stop_worker(weights))
            case ev.OpenUnit(unit=unit):
                self._spawn(self._open(unit))
            case ev.CloseUnit(unit=unit):
                self._spawn(self._close(unit))
            case ev.Evicted(models=models, reason=reason):
                known = [name for name in models.split(", ") if name in self.state.models]
                self._note("evicted", models, f"{models} was unloaded {reason}", known)
            case ev.Grant(id=id, unit=unit):
                self._resolve(id, unit, None)
            case ev.Refuse(id=id, error=error):
                self._resolve(id, None, error)
            case ev.Cancel(id=id):
                if id in self._leases:
                    self._leases[id].cancel()
                else:
                    # Granted, but the event loop has not yet resumed the request, so there is no lease to cancel.
                    # `lease` looks here when it makes one.
                    self._cancelled_early.add(id)
            case ev.Settled(unit=unit, error=error):
                for future in self._pins.pop(unit, []):
                    if not future.done():
                        future.set_exception(error) if error else future.set_result(None)
            case ev.WakeAt(when=when):
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_at(when, self._feed, ev.Tick())

    def _resolve(self, id: int, unit: UnitKey | None, error: MullamaError | None) -> None:
        grant = self._grants.get(id)
        if grant is None or grant.done():
            return
        if unit is not None:
            grant.set_result(unit)
        elif error is not None:
            grant.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(self._create_task(work))

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start(self, weights: str) -> None:
        known = next(u for key, u in self._units.items() if key.weights == weights)
        choice, stamps = known.choice, known.stamps
        early: list[Death] = []

        def died(death: Death) -> None:
            self.crashes += 1
            if weights in self._workers:
                self._died(weights, death)
            else:
                # Before the worker is registered: usually its start fails and reports the same end. If it died just
                # after a successful start, the end is handled below.
                early.append(death)

        try:
            self._attempts.begin(weights)
        except Refused as error:
            self._starts.pop(weights, None)
            self._feed(ev.WorkerLost(weights=weights, error=error, permanent=True))
            return
        self._note("worker", weights, "starting", self._users(weights))
        try:
            if moved := await _changed(stamps):
                await self._renew_weights(weights, moved)
                return
            worker = await self._take_early(weights, known, died) or await self._load_weights(weights, choice, died)
            try:
                moved = await _changed(stamps)  # while they were read
            except BaseException:
                await worker.kill()
                raise
            if moved:
                await worker.kill()
                await self._renew_weights(weights, moved)
                return
        except MullamaError as error:
            self._started(weights)
            self._note("worker-failed", weights, error.message, self._users(weights))
            lost = ev.WorkerLost(
                weights=weights,
                error=error,
                permanent=error.kind is Kind.INVALID,
                excused=isinstance(error, OutOfResources | HostLost),
                away=isinstance(error, HostLost),
            )
            self._feed(lost)
        else:
            self._workers[weights] = worker
            self._renew_spare()
            self._started(weights)
            self._feed(ev.WorkerReady(weights=weights))
            if early:
                self._died(weights, early[0])

    async def _load_weights(self, weights: str, choice: EngineChoice, died: Callable[[Death], None]) -> WorkerClient:
        """Load weights in the spare worker, or in a new one."""
        worker = await self.spare.take(died) or await self._make_worker(died, self._spawn_worker)
        self._loads[weights] = RunningLoad(worker)
        await worker.load(choice, self._loads[weights].report)
        return worker

    def _users(self, weights: str) -> Sequence[str]:
        """Return the models that lead to a worker, and those that are prepared in it."""
        units = self.state.units.items()
        prepared = {unit.pinned_for for key, unit in units if key.weights == weights and unit.pinned_for}
        named = {name for name, serve in self.state.models.items() if serve.unit.weights == weights}
        return sorted(named | prepared)

    def _start_ended(self, weights: str, start: asyncio.Task[None]) -> None:
        """Report a start that was cancelled. One that is cancelled before its first step runs no code of its own."""
        if start.cancelled():
            self._started(weights)
            self._feed(ev.WorkerStopped(weights=weights))

    def _started(self, weights: str) -> None:
        """Forget a start that has ended, before the scheduler decides on what follows."""
        self._attempts.finish(weights)
        self._starts.pop(weights, None)
        self._loads.pop(weights, None)

    async def _renew_weights(self, weights: str, states: Mapping[str, str]) -> None:
        """Have the files of weights described again that changed on disk; the weights are not opened."""
        error = _changed_on_disk(states)
        self._attempts.finish(weights)
        self._loads.pop(weights, None)
        self._note("files-changed", weights, error.message, self._users(weights))
        self._feed(ev.FilesChanged(weights=weights, error=error))
        try:
            await self._renewed([name for name, s in self.state.models.items() if s.unit.weights == weights], error)
        except MullamaError as refused:
            self._started(weights)
            self._note("worker-failed", weights, refused.message, self._users(weights))
            self._feed(ev.WorkerLost(weights=weights, error=refused, permanent=refused.kind is not Kind.UNAVAILABLE))
        else:
            self._started(weights)
            self._feed(ev.WorkerStopped(weights=weights))

    async def _renew_unit(self, unit: UnitKey, states: Mapping[str, str]) -> MullamaError | None:
        """Have the adapters of a unit described again that changed on disk. Return why the unit must not be opened."""
        error = _changed_on_disk(states)
        names = [name for name, serve in self.state.models.items() if serve.unit == unit]
        self._note("files-changed", unit.context, error.message, names)
        self._feed(ev.FilesChanged(weights=unit.weights, unit=unit, error=error))
        try:
            await self._renewed([name for name, s in self.state.models.items() if s.unit == unit], error)
        except MullamaError as refused:
            return refused
        return None if any(s.unit == unit for s in self.state.models.values()) else error

    async def _renewed(self, models: list[str], error: MullamaError) -> None:
        if self.renew is None:
            raise error
        if models:
            await self.renew(tuple(models))

    def _died(self, weights: str, death: Death) -> None:
        self._workers.pop(weights, None)
        self._note("worker-failed", weights, death.message, self._users(weights))
        blamed = self.quarantine.judge(death.work, at_fault=death.cause is not DeathCause.OUTSIDE)
        error = EngineFailed(death.message, report=death.report, retry_after=_RETRY_DEATH)
        if death.lost_host:
            error = lost_host_failure(death)
        away = bool(death.lost_host)
        self._feed(ev.WorkerLost(weights=weights, error=error, excused=blamed or away, away=away))

    async def _stop_worker(self, weights: str) -> None:
        worker = self._workers.pop(weights, None)
        if worker is not None:
            await worker.stop()
        self._feed(ev.WorkerStopped(weights=weights))

    async def _open(self, unit: UnitKey) -> None:
        known = self._units[unit]
        if moved := await _changed(known.adapter_stamps):
            if (refused := await self._renew_unit(unit, moved)) is not None:
                self._feed(ev.UnitFailed(unit=unit, error=refused))
                return
            known = self._units[unit]
        try:
            known.facts = await self._worker(unit).open_context(unit.context, known.options)
            if moved := await _changed(known.adapter_stamps):  # while they were read
                await self._worker(unit).close_context(unit.context)
                raise _changed_on_disk(moved)
        except EngineFailed as error:
            # The death of a worker has an event of its own; any other failure is the context's.
            if unit.weights in self._workers:
                self._feed(ev.UnitFailed(unit=unit, error=error))
        except MullamaError as error:
            self._feed(ev.UnitFailed(unit=unit, error=error))
        else:
            self._feed(ev.UnitOpened(unit=unit))

    async def _close(self, unit: UnitKey) -> None:
        worker = self._workers.get(unit.weights)
        if worker is not None:
            with contextlib.suppress(EngineFailed):
                await worker.close_context(unit.context)
        self._feed(ev.UnitClosed(unit=unit))


async def _changed(stamps: Mapping[str, str]) -> Mapping[str, str]:
    return await asyncio.to_thread(changed, stamps) if stamps else {}


def _changed_on_disk(states: Mapping[str, str]) -> MullamaError:
    return Unavailable(changed_on_disk(states), hint="mullama apply loads the file as it is now", retry_after=1.0)
