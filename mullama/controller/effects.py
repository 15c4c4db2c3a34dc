"""The effects of applying, in a running server: fetch, check, commit, load, swap.

Loading beside the old is the rule (surge). Where both do not fit, requests to the model wait while the old one
drains and closes (recreate); when the new one then fails, the old one is loaded again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.engines.base import Ended, Generate, Piece
from mullama.errors import EngineFailed, MullamaError, ProbeFailed, Refused
from mullama.manifest.spec import Manifest, Model, Probe
from mullama.plan.fit import too_large
from mullama.plan.observed import KnownFiles, Machine
from mullama.plan.steps import Plan, Step
from mullama.reconcile.execute import Report, Result
from mullama.runtime.base import Access
from mullama.runtime.deployment import Deployment, Snapshot
from mullama.runtime.pool import Pool
from mullama.runtime.scheduler.events import UnitKey
from mullama.runtime.scheduler.state import Phase
from mullama.runtime.serving.build import DeploymentBuilder
from mullama.sources.local_files import check_adapter


class Fetch(Protocol):
    async def __call__(self, model: Model, report: Callable[[dict[str, Any]], None], name: str) -> KnownFiles: ...


class LiveEffects:
    """One run's effects. `publish` makes a snapshot the one that requests see."""

    def __init__(
        self,
        *,
        desired: Manifest,
        old: Snapshot,
        pool: Pool,
        workshop: DeploymentBuilder,
        fetch: Fetch,
        machine: Machine | None,
        access: Access,
        on_commit: Callable[[Plan], Awaitable[None]],
        on_prune: Callable[[], Awaitable[None]],
        on_record: Callable[[Result], None],
        publish: Callable[[Snapshot], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self._desired, self._old, self._pool, self._workshop = desired, old, pool, workshop
        self._fetch, self._machine, self._access = fetch, machine, access
        self._on_commit, self._on_record, self._publish = on_commit, on_record, publish
        self._on_prune = on_prune
        self._warn = warn
        self._new: dict[str, Deployment] = {}
        self._held: set[UnitKey] = set()
        self._paused: set[str] = set()
        self._predecessors: dict[str, str] = {}
        self._generation = 0

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        return await self._fetch(model, report, name)

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        facts = files.facts
        if facts is not None and (missing := set(model.requires) - set(facts.capabilities)):
            raise Refused(
                f"{name} requires {', '.join(sorted(missing))}, which {model.from_} does not have",
                hint=f"the file has: {', '.join(facts.capabilities)}",
            )
        if facts is not None:
            too_much = too_large(name, model, facts, self._desired.hardware.budget, self._machine)
            if too_much:
                raise Refused(too_much, hint="a smaller context.size, a smaller quant, or a larger hardware.budget")
        for adapter in model.adapters:
            await asyncio.to_thread(check_adapter, adapter.from_, facts)
        self._new[name] = await asyncio.to_thread(self._workshop.build, name, model, files, 0)

    async def commit(self, plan: Plan) -> None:
        self._generation = plan.generation
        self._predecessors = {s.subject: s.renamed_from for s in plan.steps if s.renamed_from}
        await self._on_commit(plan)

    def wants(self, name: str) -> bool:
        """What loads at start, and what is loaded now, so that a change is known to work before the swap."""
        old = self._predecessor(name)
        return self._new[name].model.residency.load == "at_start" or (old is not None and self._is_open(old))

    async def load(self, name: str, step: Step | None) -> None:
        new, old = self._new[name], self._predecessor(name)
        if old is not None and old.unit != new.unit and step is not None and step.pause and self._is_open(old):
            await self._recreate(new, old)
        else:
            await self._surge(new)

    def _predecessor(self, name: str) -> Deployment | None:
        return self._old.deployments.get(self._predecessors.get(name, name))

    def _is_open(self, deployment: Deployment) -> bool:
        return self._pool.phase(deployment.unit) is not Phase.COLD

    async def _surge(self, new: Deployment) -> None:
        """A unit that another model of this run holds already stays held, whatever becomes of this one."""
        ours = new.unit not in self._held
        self._held.add(new.unit)
        try:
            await self._pool.prepare(new)
            await self._probe(new)
        except BaseException:
            if ours:
                self._let_go(new.unit)
            raise

    def _let_go(self, unit: UnitKey) -> None:
        self._held.discard(unit)
        self._pool.release(unit)

    async def _recreate(self, new: Deployment, old: Deployment) -> None:
        """Every model on the old unit waits. One that this run does not change keeps it open, so then none does."""
        sharing = {name for name, d in self._old.deployments.items() if d.unit == old.unit}
        if any(self._stays(name, old.unit) for name in sharing):
            await self._surge(new)
            return
        waiting = sharing - self._paused
        self._pause(waiting)
        try:
            await self._pool.closed(old.unit)
            await self._surge(new)
        except BaseException:
            self._resume(waiting)
            raise

    def _stays(self, name: str, unit: UnitKey) -> bool:
        """Whether the model of this old name will lead to the same unit after the run."""
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
        """The run ended before its swap: whatever it held or paused is as it was."""
        for unit in tuple(self._held):
            self._let_go(unit)
        self._resume(self._paused)

    async def _probe(self, new: Deployment) -> None:
        """One token must come; with `probe` in the manifest, its answer must match."""
        if new.model.task != "chat":
            return
        probe = new.model.probe or Probe()
        try:
            async with asyncio.timeout(probe.timeout):
                text = await self._ask(new, probe.prompt or "", probe.expect is not None)
        except TimeoutError:
            raise ProbeFailed(f"the probe had no answer within {probe.timeout:g} s") from None
        if probe.expect and not re.search(probe.expect, text):
            raise ProbeFailed(f"the probe answered {text[:200]!r}, which does not match {probe.expect!r}")

    async def _ask(self, new: Deployment, prompt: str, whole: bool) -> str:
        worker = self._pool.worker(new.unit)
        if worker is None:
            raise EngineFailed("the worker ended before the probe")
        job = Generate(
            id=worker.next_id(),
            context=new.unit.context,
            prompt=self._workshop.probe_prompt(new, prompt),
            sampling=Sampling(temperature=0.0).over(DEFAULT_SAMPLING),
            max_tokens=64 if whole else 1,
            ignore_eos=not whole,
            cache=False,
        )
        text = ""
        async for outputs in worker.generate(job):
            text += "".join(output.text for output in outputs if isinstance(output, Piece))
            if any(isinstance(output, Ended) and output.completion_tokens == 0 for output in outputs):
                raise ProbeFailed("the probe generated nothing")
        return text

    async def swap(self, failed: Mapping[str, MullamaError]) -> None:
        deployments: dict[str, Deployment] = {}
        for name, model in self._desired.models.items():
            deployments[name] = await self._choose(name, model, failed)
        if not self._desired.prune.running:
            gone = {*deployments, *self._predecessors.values()}
            deployments = {**{n: d for n, d in self._old.deployments.items() if n not in gone}, **deployments}
        snapshot = self._workshop.snapshot(self._desired, deployments, self._generation, self._machine, self._access)
        for deployment in deployments.values():
            self._pool.adopt(deployment)
        self._publish(snapshot)
        moved = {old: new for new, old in self._predecessors.items()}
        self._pool.swap({name: d.serve for name, d in snapshot.deployments.items()}, snapshot.rules, moved)
        self._held.clear()
        self._paused.clear()
        for name in self._new.keys() - failed.keys():
            self._pool.retry(name)
        await self._retune(deployments.values())

    async def _retune(self, deployments: Iterable[Deployment]) -> None:
        """The live parts of open units. A worker that dies over it is loaded again, with the new ones."""
        for owner in {d.unit: d for d in deployments}.values():
            try:
                await self._pool.retune(self._workshop.joined(owner, deployments))
            except MullamaError as error:
                self._warn(owner.name, str(error))

    async def _choose(self, name: str, model: Model, failed: Mapping[str, MullamaError]) -> Deployment:
        """The new deployment, or the old one where the new one failed, or the old one untouched."""
        old, new = self._predecessor(name), self._new.get(name)
        if name in failed and old is not None:
            return replace(old, name=name, serve=replace(old.serve, name=name))
        if new is not None:
            return replace(new, generation=self._generation)
        assert old is not None, f"{name} has no step and was not served"
        return old

    async def prune(self) -> None:
        await self._on_prune()

    def record(self, result: Result) -> None:
        self._on_record(result)
