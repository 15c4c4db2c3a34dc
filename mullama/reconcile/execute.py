"""Make it so: three fixed phases over a short list of effects.

1. fetch everything; if one fails, nothing is committed and what was fetched stays for the next try
2. commit the generation, once
3. load the new beside the old, probe it, swap, let the old drain, unload

A model whose new revision does not load or probe keeps its old one serving; the others go on. Every step asks
first whether its goal is reached already, so a run that was killed is continued by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest, Model
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import Action, Cost, Plan, Step

Report = Callable[[dict[str, Any]], None]
"""Told each event of the progress, in its published JSON form."""


class Effects(Protocol):
    """Everything that applying may cause."""

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        """Have the files of this model in the store, whole and checked."""
        ...

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        """Raise what would make this model unservable: bad header, missing capability, broken template."""
        ...

    async def commit(self, plan: Plan) -> None:
        """Write the revision; raises when it is not written, and then nothing has changed."""
        ...

    def wants(self, name: str) -> bool:
        """Whether this model is to be in memory before the swap; any other loads with its first request."""
        ...

    async def load(self, name: str, step: Step | None) -> None:
        """Have the model's new unit open and probed, beside the old one or in its place."""
        ...

    async def swap(self, failed: Mapping[str, MullamaError]) -> None:
        """Let names lead to the new units; those that failed keep their old ones."""
        ...

    async def prune(self) -> None:
        """Delete the files that the plan showed, as far as nothing refers to them still."""
        ...

    def record(self, result: Result) -> None:
        """Note how it ended, in the revision."""
        ...


class Outcome(StrEnum):
    """How an apply ended after the commit. One that failed before the commit has the kind of its error instead."""

    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an apply ended after the commit, and the outcome of each changed model."""

    outcome: Outcome
    message: str
    generation: int
    revision: str
    failures: Mapping[str, MullamaError] = field(default_factory=dict)
    touched: tuple[str, ...] = ()

    def tree(self) -> dict[str, Any]:
        models = {name: {"ok": True, "message": ""} for name in self.touched}
        models |= {name: {"ok": False, "message": str(error)} for name, error in self.failures.items()}
        return {
            "event": "result",
            "outcome": self.outcome.value,
            "message": self.message,
            "generation": self.generation,
            "revision": self.revision,
            "models": models,
        }


async def execute(plan: Plan, desired: Manifest, effects: Effects, report: Report) -> Result:
    """Run the plan; raises only before the commit, when nothing was changed."""
    steps = {step.subject: step for step in plan.steps if step.kind == "model"}
    report({"event": "phase", "phase": "fetch"})
    await fetch(desired, {name for name in desired.models if _touches_files(steps.get(name))}, effects, report)
    report({"event": "phase", "phase": "commit"})
    await effects.commit(plan)
    report({"event": "phase", "phase": "load"})
    failures = await _load(desired, steps, effects, report)
    report({"event": "phase", "phase": "swap"})
    await effects.swap(failures)
    if any(step.kind == "files" for step in plan.steps):
        report({"event": "phase", "phase": "prune"})
        await effects.prune()
    result = _result(plan, tuple(steps), failures)
    effects.record(result)
    return result


async def fetch(desired: Manifest, names: Collection[str], effects: Effects, report: Report) -> None:
    """Fetch for these models in parallel, then check each; the first failure ends the rest."""
    slots = asyncio.Semaphore(max(1, desired.sources.parallel))

    async def one(name: str, model: Model) -> None:
        async with slots:
            files = await effects.fetch(model, report, name)
            await effects.check(name, model, files)

    try:
        async with asyncio.TaskGroup() as group:
            for name, model in desired.models.items():
                if name in names:
                    group.create_task(one(name, model))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _touches_files(step: Step | None) -> bool:
    """Whatever differs in a model is checked again; its files are then found rather than fetched."""
    return step is not None and step.action is not Action.REMOVE


async def _load(
    desired: Manifest, steps: Mapping[str, Step], effects: Effects, report: Report
) -> dict[str, MullamaError]:
    """One after the other: by priority, then in the manifest's order."""
    failures: dict[str, MullamaError] = {}
    order = sorted(desired.models.items(), key=lambda item: -item[1].residency.priority)
    for name, _ in order:
        step = steps.get(name)
        if step is None or step.action is Action.REMOVE or step.cost in (Cost.NONE, Cost.LIVE):
            continue
        if not effects.wants(name):
            report({"event": "step", "model": name, "state": "idle", "message": "loads with its first request"})
            continue
        report({"event": "step", "model": name, "state": "loading", "message": step.detail})
        try:
            await effects.load(name, step)
        except MullamaError as error:
            failures[name] = error
            report({"event": "step", "model": name, "state": "failed", "message": str(error)})
        else:
            report({"event": "step", "model": name, "state": "ready", "message": ""})
    return failures


def _result(plan: Plan, touched: tuple[str, ...], failures: Mapping[str, MullamaError]) -> Result:
    if failures:
        names = ", ".join(failures)
        message, outcome = f"applied, but not these: {names}", Outcome.PARTLY_APPLIED
    else:
        message, outcome = f"revision {plan.generation} is applied", Outcome.APPLIED
    return Result(
        outcome=outcome,
        message=message,
        generation=plan.generation,
        revision=plan.desired,
        failures=failures,
        touched=touched,
    )
