"""The effects of applying, in a running server: fetch, check, commit, load, swap.

Loading beside the old is the rule (surge). Where both do not fit, requests to the model wait while the old one
drains and closes (recreate); when the new one then fails, the old one is loaded again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from mullama.chat.types import DEFAULT_SAMPLING, Sampling
from mullama.engines.base import Ended, Generate, Piece
from mullama.errors import EngineFailed, MullamaError, Refused, TimedOut
from mullama.manifest.spec import Manifest, Model, Probe
from mullama.plan.fit import too_large
from mullama.plan.observed import KnownFiles, Machine
from mullama.plan.steps import Plan, Step
from mullama.reconcile.execute import Report, Result
from mullama.runtime.deploy import Workshop
from mullama.runtime.deployment import Deployment, Snapshot
from mullama.runtime.policy.state import Phase
from mullama.runtime.pool import Pool


class Fetch(Protocol):
    async def __call__(self, model: Model, report: Callable[[dict[str, Any]], None], name: str) -> KnownFiles: ...


class LiveEffects:
    """One run's effects. `publish` makes a snapshot the one that requests see."""

    def __init__(
        self,
        *,
        wish: Manifest,
        old: Snapshot,
        pool: Pool,
        workshop: Workshop,
        fetch: Fetch,
        machine: Machine | None,
        on_commit: Callable[[Plan], None],
        on_record: Callable[[Result], None],
        publish: Callable[[Snapshot], None],
    ) -> None:
        self._wish, self._old, self._pool, self._workshop = wish, old, pool, workshop
        self._fetch, self._machine = fetch, machine
        self._on_commit, self._on_record, self._publish = on_commit, on_record, publish
        self._files: dict[str, KnownFiles] = {}
        self._new: dict[str, Deployment] = {}
        self._generation = 0

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        files = await self._fetch(model, report, name)
        self._files[name] = files
        return files

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        facts = files.facts
        if facts is not None and (missing := set(model.requires) - set(facts.capabilities)):
            raise Refused(
                f"{name} requires {', '.join(sorted(missing))}, which {model.from_} does not have",
                hint=f"the file has: {', '.join(facts.capabilities)}",
            )
        if facts is not None:
            too_much = too_large(name, model, facts, self._wish.hardware.budget, self._machine)
            if too_much:
                raise Refused(too_much, hint="a smaller context.size, a smaller quant, or a larger hardware.budget")
        self._new[name] = await asyncio.to_thread(self._workshop.build, name, model, files, 0)

    def commit(self, plan: Plan) -> None:
        self._generation = plan.generation
        self._on_commit(plan)

    async def load(self, name: str, step: Step | None) -> None:
        new, old = self._new[name], self._predecessor(name, step)
        if not self._should_load(new, old):
            return
        if old is not None and old.unit != new.unit and step is not None and step.pause and self._is_open(old):
            await self._recreate(new, old)
        else:
            await self._surge(new)

    def _predecessor(self, name: str, step: Step | None) -> Deployment | None:
        old_name = step.renamed_from if step and step.renamed_from else name
        return self._old.deployments.get(old_name)

    def _should_load(self, new: Deployment, old: Deployment | None) -> bool:
        """What loads at start, and what is loaded now, so that a change is known to work before the swap."""
        return new.model.residency.load == "at_start" or (old is not None and self._is_open(old))

    def _is_open(self, deployment: Deployment) -> bool:
        return self._pool.phase(deployment.unit) is not Phase.COLD

    async def _surge(self, new: Deployment) -> None:
        try:
            await self._pool.prepare(new)
            await self._probe(new)
        except BaseException:
            self._pool.release(new.unit)
            raise

    async def _recreate(self, new: Deployment, old: Deployment) -> None:
        self._pool.pause(old.name)
        try:
            await self._pool.closed(old.unit)
            await self._surge(new)
        except BaseException:
            self._pool.resume(old.name)
            raise

    async def _probe(self, new: Deployment) -> None:
        """One token must come; with `probe` in the manifest, its answer must match."""
        if new.model.task != "chat":
            return
        probe = new.model.probe or Probe()
        try:
            async with asyncio.timeout(probe.timeout):
                text = await self._ask(new, probe.prompt or "", probe.expect is not None)
        except TimeoutError:
            raise TimedOut(f"{new.name}: the probe had no answer within {probe.timeout:g} s") from None
        if probe.expect and not re.search(probe.expect, text):
            raise EngineFailed(f"{new.name}: the probe answered {text[:200]!r}, which does not match {probe.expect!r}")

    async def _ask(self, new: Deployment, prompt: str, whole: bool) -> str:
        worker = self._pool.worker(new.unit)
        if worker is None:
            raise EngineFailed(f"{new.name}: the worker ended before the probe")
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
        async for output in worker.generate(job):
            if isinstance(output, Piece):
                text += output.text
            if isinstance(output, Ended) and output.completion_tokens == 0:
                raise EngineFailed(f"{new.name}: the probe generated nothing")
        return text

    async def swap(self, failed: Mapping[str, MullamaError]) -> None:
        deployments: dict[str, Deployment] = {}
        for name, model in self._wish.models.items():
            deployments[name] = await self._choose(name, model, failed)
        if not self._wish.prune.running:
            deployments = {**{n: d for n, d in self._old.deployments.items() if n not in deployments}, **deployments}
        snapshot = self._workshop.snapshot(self._wish, deployments, self._generation, self._machine)
        for deployment in deployments.values():
            self._pool.adopt(deployment)
        self._publish(snapshot)
        self._pool.swap({name: d.serve for name, d in snapshot.deployments.items()}, snapshot.rules)
        for unit_owner in {d.unit: d for d in deployments.values()}.values():
            await self._pool.retune(self._workshop.joined(unit_owner, deployments.values()))

    async def _choose(self, name: str, model: Model, failed: Mapping[str, MullamaError]) -> Deployment:
        """The new deployment, or the old one where the new one failed, or the old one untouched."""
        old, new = self._old.deployments.get(name), self._new.get(name)
        if name in failed and old is not None:
            return old
        if new is not None:
            return replace(new, generation=self._generation)
        assert old is not None, f"{name} has no step and was not served"
        return old

    def record(self, result: Result) -> None:
        self._on_record(result)
