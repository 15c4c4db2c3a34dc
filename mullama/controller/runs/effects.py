"""The effects of an apply in a running server: download, check, commit, load, swap.

A new revision of a model loads while the old one serves (surge). If memory is short for both, requests to the model
wait while the old one drains and closes (recreate); if the new one then fails, the old one is loaded again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Iterable, Mapping, Sequence, Set

from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.controller.current import CurrentState
from mullama.controller.event_log import EventLog
from mullama.controller.listeners import Listeners
from mullama.controller.runs.change import PlannedChange
from mullama.controller.runs.downloads import ModelDownloads, author_of
from mullama.controller.runs.history import History
from mullama.controller.runs.queue import PendingRuns, Run
from mullama.engines import require_installed
from mullama.engines.base import Ended, Generate, Piece
from mullama.errors import (
    BadWeights,
    EngineFailed,
    Invalid,
    ModelUnavailable,
    MullamaError,
    NotFound,
    ProbeFailed,
    Refused,
    masked,
)
from mullama.manifest.spec import Manifest, Model, Probe
from mullama.names import PathRef, parse_source
from mullama.plan.drafting import draft_problem
from mullama.plan.fit import projector_memory, stays, too_large
from mullama.plan.headers import FEWER_DIMENSIONS, dimensions_problem
from mullama.plan.observed import KnownFiles
from mullama.plan.projectors import TEXT_ONLY, abilities, projector_of, projector_problem, required
from mullama.plan.steps import Plan, Step
from mullama.reconcile.execute import Overtaken, Report, Result
from mullama.reconcile.files import Files
from mullama.reconcile.gc import prune
from mullama.reconcile.overlay import effective_entries
from mullama.reconcile.scripted_models import is_script
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.events import UnitKey
from mullama.runtime.scheduler.state import Phase, UnloadedEarly
from mullama.runtime.serving.build import DeploymentBuilder, engine_of, rules_of
from mullama.runtime.snapshot import Deployment
from mullama.runtime.tools.book import ToolBook
from mullama.sources.aliases import tagged
from mullama.sources.local_files import check_adapter
from mullama.store.records import Records
from mullama.struct import Struct, field, replace
from mullama.weights.stored import LockEntry


class Services(Struct, frozen=True, kw_only=True):
    """The parts of one server that its runs share."""

    records: Records
    files: Files
    pool: Pool
    state: CurrentState
    listeners: Listeners
    downloads: ModelDownloads
    history: History
    event_log: EventLog
    pending: PendingRuns
    tools: ToolBook
    begun: set[UnitKey] = field(default_factory=set)
    """Units whose load a run began and did not wait for; each stays pinned until a run takes it over or drops it."""


class LiveEffects:
    """The effects of one planned change. Implements `reconcile.execute.Effects`."""

    def __init__(self, services: Services, run: Run, planned: PlannedChange) -> None:
        self._services, self._run, self._planned = services, run, planned
        self._pool, self._desired = services.pool, planned.desired
        self._machine = planned.observed.machine
        self._builder = DeploymentBuilder(
            machine=self._machine,
            prefixes=services.records.prefix_folder,
            memory=services.records.memory_folder,
            tools=services.tools.prompt_of,
        )
        self._old = services.state.value.snapshot
        self._new: dict[str, Deployment] = {}
        self._pinned: set[UnitKey] = set()
        self._paused: set[str] = set()
        self._unloaded: set[str] = set()  # models whose load a client ended
        self._predecessors = {s.subject: s.renamed_from for s in planned.plan.steps if s.renamed_from}

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        if (error := self._run.unavailable.get(name)) is not None:
            raise error
        options = self._run.change.options
        author = author_of(name, self._planned.overlay, options)
        return await self._services.downloads.get(
            self._desired, self._planned.lock, name, report, offline=options.offline, author=author
        )

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        store = self._services.files
        old = self._predecessor(name)
        self._new[name] = await asyncio.to_thread(
            checked, self._builder, store, name, model, files, self._desired, self._planned.lock, old
        )

    def leave_out(self, name: str, error: ModelUnavailable) -> None:
        """See `Effects`. A model that serves keeps its unit, although its files are gone."""
        old = self._predecessor(name)
        if old is None or old.unavailable is not None:
            self._new[name] = self._builder.unavailable(name, self._desired.models[name], error)

    async def commit(self, plan: Plan) -> None:
        # Listeners first: an address that cannot be opened ends the run with nothing committed.
        await self._services.listeners.open(self._desired, self._planned.access)
        self._pool.widen(rules_of(self._desired, self._machine))
        self._services.history.commit(self._run.change, self._planned)
        self._services.event_log.generation = plan.generation

    def wants(self, name: str) -> bool:
        """True for a model that loads at start, and for one that is loaded: its change is tested before the swap."""
        new, old = self._wanted(name), self._predecessor(name)
        assert new is not None, f"{name} has no deployment"
        return new.model.residency.load == "at_start" or (old is not None and self._is_open(old))

    def lacks(self, name: str) -> bool:
        """See `Effects`: it stays in memory, or this process has not served it yet, and it is not loaded."""
        model, old = self._new[name].model, self._predecessor(name)
        if model.residency.load != "at_start" or (old is not None and self._is_open(old)):
            return False
        return old is None or stays(model)

    def loads(self, name: str) -> bool:
        """See `Effects`."""
        wanted = self._wanted(name)
        return wanted is not None and wanted.unit in self._services.begun

    def _wanted(self, name: str) -> Deployment | None:
        """Return the deployment that a model has after this run."""
        return self._new.get(name) or self._predecessor(name)

    @property
    def awaits_loads(self) -> bool:
        """See `Effects`. A change of the overlay concerns its own model only; the manifest's run awaits the rest."""
        return self._run.change.desired is not None

    async def load(self, name: str, step: Step | None) -> None:
        try:
            await self._load(name, step)
        except UnloadedEarly:
            self._unloaded.add(name)
            raise

    async def _load(self, name: str, step: Step | None) -> None:
        new, old = self._wanted(name), self._predecessor(name)
        assert new is not None, f"{name} has no deployment"
        if new.unit in self._services.begun and self._pool.unloaded(new.unit):
            self._unpin(new.unit)
            raise UnloadedEarly(name)
        if old is not None and old.unit != new.unit and step is not None and step.pause and self._is_open(old):
            await self._recreate(new, old)
        else:
            await self._surge(new)

    def _predecessor(self, name: str) -> Deployment | None:
        return self._old.deployments.get(self._predecessors.get(name, name))

    def _is_open(self, deployment: Deployment) -> bool:
        return self._pool.phase(deployment.unit) is not Phase.COLD

    async def _surge(self, new: Deployment) -> None:
        """Load and probe the new unit; unpin it on failure, unless another model of this run pinned it first."""
        first = new.unit not in self._pinned
        self._pinned.add(new.unit)
        self._services.begun.discard(new.unit)
        try:
            await self._run.unless_overtaken(self._pool.prepare(new))
            await self._run.unless_overtaken(self._probe(new))
        except Overtaken:
            self._services.begun.add(new.unit)
            raise
        except BaseException:
            if first:
                self._unpin(new.unit)
            raise

    def _unpin(self, unit: UnitKey) -> None:
        self._pinned.discard(unit)
        self._services.begun.discard(unit)
        self._pool.release(unit)

    async def _recreate(self, new: Deployment, old: Deployment) -> None:
        """Close the old unit, then load the new one. Requests to all models on the old unit wait.

        If another model keeps using the old unit, the unit cannot close: then the new one is loaded next to it.
        """
        sharing = {name for name, d in self._old.deployments.items() if d.unit == old.unit}
        if any(self._stays(name, old.unit) for name in sharing):
            await self._surge(new)
            return
        waiting = sharing - self._paused
        self._pause(waiting)
        try:
            await self._run.unless_overtaken(self._pool.closed(old.unit))
            await self._surge(new)
        except BaseException:
            # Also when the run is overtaken: there is no room for both, so the old unit serves until the next try.
            self._unpin(new.unit)
            self._resume(waiting)
            raise

    def _stays(self, name: str, unit: UnitKey) -> bool:
        """True when the model of this old name still uses the unit after the run."""
        after = {self._predecessors.get(n, n): d for n, d in self._new.items()}
        if name in after:
            return after[name].unit == unit
        return name in self._desired.models or not self._desired.prune.running

    def _pause(self, names: Iterable[str]) -> None:
        for name in names:
            self._paused.add(name)
            self._pool.pause(name)

    def _resume(self, names: Iterable[str]) -> None:
        for name in tuple(names):
            self._paused.discard(name)
            self._pool.resume(name)

    def abandon(self) -> None:
        """Undo pins and pauses of a run that ended before its swap."""
        for unit in tuple(self._pinned):
            self._unpin(unit)
        self._resume(self._paused)
        served = self._services.state.value.snapshot
        if served.generation:
            self._pool.bound(served.rules)

    async def _probe(self, new: Deployment) -> None:
        """Require one token; with `probe.expect` in the manifest, require a matching answer."""
        if new.model.task != "chat":
            return
        probe = new.model.probe or Probe()
        try:
            async with asyncio.timeout(probe.timeout):
                text = await self._probe_text(new, probe.prompt or "", full=probe.expect is not None)
        except TimeoutError:
            raise ProbeFailed(f"the probe got no answer within {probe.timeout:g} s") from None
        if probe.expect and not re.search(probe.expect, text):
            raise ProbeFailed(f"the probe answered {text[:200]!r}, which does not match {probe.expect!r}")

    async def _probe_text(self, new: Deployment, prompt: str, *, full: bool) -> str:
        worker = self._pool.worker(new.unit)
        if worker is None:
            raise EngineFailed("the worker ended before the probe")
        rendered = self._builder.probe_prompt(new, prompt, answered=full)
        job = Generate(
            id=worker.next_id(),
            context=new.unit.context,
            prompt=rendered.text,
            joint=rendered.joint,
            sampling=Sampling(temperature=0.0).over(DEFAULT_SAMPLING),
            max_tokens=64 if full else 1,
            ignore_eos=not full,
            cache=False,
        )
        text = ""
        async for outputs in worker.generate(job):
            text += "".join(output.text for output in outputs if isinstance(output, Piece))
            if any(isinstance(output, Ended) and output.completion_tokens == 0 for output in outputs):
                raise ProbeFailed("the model generated nothing for the probe")
        return text

    async def swap(self, held: Container[str]) -> None:
        planned, generation = self._planned, self._planned.plan.generation
        deployments = {name: self._choose(name, held) for name in self._desired.models}
        if not self._desired.prune.running:
            gone = {*deployments, *self._predecessors.values()}
            deployments = {**{n: d for n, d in self._old.deployments.items() if n not in gone}, **deployments}
        snapshot = self._builder.snapshot(self._desired, deployments, generation, self._machine, planned.access)
        for deployment in snapshot.available:
            self._pool.adopt(deployment)
        self._services.state.update(
            manifest=planned.manifest,
            overlay=effective_entries(planned.manifest, planned.overlay),
            origin=planned.origin,
            snapshot=snapshot,
        )
        moved = {old: new for new, old in self._predecessors.items()}
        # No await between the new snapshot and this: a request sees both from the same revision.
        self._pool.swap({d.name: d.serve for d in snapshot.available}, snapshot.rules, moved)
        self._pinned.clear()
        self._paused.clear()
        self._drop_loads()
        for name in self._unloaded:
            self._pool.unload(name, forced=False)
        if not self._planned.missing:  # else it is accepted with its downloads
            self._services.pending.accept(self._run)
        self._run.settled.set()
        for name in self._new:
            if name not in held:
                self._pool.retry(name)
        await self._retune(snapshot.available)

    def _drop_loads(self) -> None:
        """End the loads that an earlier run began and that this manifest does not want."""
        wanted = {d.unit for name in self._desired.models if (d := self._wanted(name))}
        for unit in self._services.begun - wanted if self.awaits_loads else set():
            self._unpin(unit)

    async def _retune(self, deployments: Iterable[Deployment]) -> None:
        """Apply the live parts to open units. A worker that dies from this is loaded again, with the new ones."""
        for owner in {d.unit: d for d in deployments}.values():
            try:
                await self._pool.retune(self._builder.joined(owner, deployments))
            except MullamaError as error:
                self._services.event_log.note("warning", owner.name, str(error), (owner.name,))

    def _choose(self, name: str, held: Container[str]) -> Deployment:
        """Return the new deployment; the old one where the new one is held or nothing changed."""
        old, new = self._predecessor(name), self._new.get(name)
        if name in held and old is not None and old.unavailable is None:
            return replace(old, name=name, serve=replace(old.serve, name=name))
        if new is not None:
            return replace(new, generation=self._planned.plan.generation)
        assert old is not None, f"{name} has no step and was not served"
        return old

    async def prune(self) -> None:
        shown, services = self._run.prunable, self._services
        root = services.records.folder.parent
        gone = await asyncio.to_thread(prune, self._desired, root, services.files, self._planned.lock, shown)
        services.event_log.add("pruned", "", f"{len(gone)} of {len(shown)} files")

    def record(self, result: Result) -> None:
        self._services.history.record_result(result)


def checked(
    builder: DeploymentBuilder, store: Files, name: str, model: Model, files: KnownFiles, desired: Manifest,
    lock: Mapping[str, LockEntry], old: Deployment | None = None,
) -> Deployment:  # fmt: skip
    """Return the deployment of a model with its files. Raises for one that cannot be served on this machine.

    old: see `DeploymentBuilder.build`.
    """
    require_installed(engine_of(files))
    facts = files.facts
    beside = {model.from_: files}
    if (other := model.projector_source) is not None:
        beside[other] = store.source(other, desired, lock.get(other), "projector")
        if not beside[other].stored:
            raise NotFound(f"the projector {masked(other)} is not on this machine", name=other)
    projector = projector_of(model, beside)
    present = abilities(facts, projector)
    if facts is not None and (missing := set(required(model)) - set(present)):
        raise _lacking(name, model, missing, present)
    if problem := projector_problem(model, facts, projector):
        raise BadWeights(f"{name}: {problem}", hint=TEXT_ONLY)
    if facts is not None and (problem := dimensions_problem(model, facts)):
        raise Refused(f"{name}: {problem}", hint=FEWER_DIMENSIONS.format(facts.embedding_length))
    source = model.draft.source if model.draft else None
    drafter = store.source(source, desired, lock.get(source)) if source else None
    small = drafter.facts if drafter else None
    if problem := draft_problem(model, facts, small):
        raise BadWeights(f"{name}: {problem}", hint="draft: auto guesses without a draft model")
    budget = desired.hardware.budget
    if facts is not None and (
        too_much := too_large(name, model, facts, budget, builder.machine, small, projector_memory(model, beside))
    ):
        raise Refused(too_much, hint="use a smaller context.size, a smaller file, or a larger hardware.budget")
    adapters, weights = [], () if is_script(files.source) else files.paths
    for adapter in model.adapters:
        pin = lock.get(adapter.from_)
        known = None if isinstance(parse_source(adapter.from_), PathRef) else store.adapter(adapter, desired, pin)
        check_adapter(known.paths[0] if known else adapter.from_, weights, facts)
        adapters.append(known or store.adapter(adapter, desired, pin))
    check_distinct(model, adapters)
    return builder.build(name, model, files, 0, tuple(adapters), drafter, old, projector)


def check_distinct(model: Model, adapters: Sequence[KnownFiles]) -> None:
    """Raise `Invalid` for two sources of one adapter file: llama.cpp applies a file once."""
    seen: dict[str, str] = {}
    for declared, known in zip(model.adapters, adapters, strict=True):
        if (first := seen.setdefault(known.digest or declared.from_, declared.from_)) != declared.from_:
            raise Invalid(
                f"the adapters {masked(first)} and {masked(declared.from_)} are the same file",
                hint="remove one of them",
            )


def _lacking(name: str, model: Model, missing: Set[str], present: Sequence[str]) -> Refused:
    """Return the error for a model without the capabilities of its `requires`, with names that have them."""
    field = "requires" if missing <= set(model.requires) else "task"
    hint = f"remove it from models.{name}.{field}" if field == "requires" else f"change models.{name}.task"
    if missing & {"vision", "audio"}:
        hint = f"a model sees and hears by its projector, which `mmproj` names; {hint}"
    elif known := tagged(missing)[:3]:
        hint = f"known models that have it are {', '.join(known)}; or {hint}"
    return Refused(
        f"models.{name}.{field}: {name} lacks {', '.join(sorted(missing))}; {masked(model.from_)} has "
        f"{', '.join(present) or 'no capability'}",
        hint=hint,
    )
