"""Executes a plan in three fixed phases over a short list of effects.

1. Download all files. After a failure nothing is committed, and the downloads stay for the next try. A model that may
   be left out (see `reconcile.partial_apply.expendable`) does not end the run: it has no unit until its files are here.
2. Commit the revision, once.
3. Load each new model next to the old one, probe it, swap, drain the old one and unload it.

A model that cannot be loaded or probed keeps its old unit; the other models are swapped. Each step first checks if its
goal is reached, so the next run continues one that was killed.

No load holds up another change. A change that arrives during the loads ends the wait for them (`Overtaken`): the rest
is swapped, and the loads continue. A later run swaps before it waits for such a load, and again after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Container, Mapping
from enum import StrEnum
from typing import Any, Protocol

from mullama.errors import ModelUnavailable, MullamaError
from mullama.manifest.spec import Manifest, Model
from mullama.plan.devices import DeviceMissing
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import Action, Cost, Plan, Step
from mullama.struct import Struct, field, replace

Report = Callable[[dict[str, Any]], None]
"""Receives each event of the progress in its published JSON form."""


class Overtaken(Exception):
    """Another change waits, so this run waits no longer for a load. The load continues."""


class Effects(Protocol):
    """The operations of an apply."""

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        """Return the files of a model, complete and verified, after a download if needed."""
        ...

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        """Raise for a model that cannot be served: bad header, missing capability, broken template."""
        ...

    def leave_out(self, name: str, error: ModelUnavailable) -> None:
        """Serve the others without a model whose files are missing or cannot be used."""
        ...

    async def commit(self, plan: Plan) -> None:
        """Write the revision. After an error nothing has changed."""
        ...

    def wants(self, name: str) -> bool:
        """Return True for a model that is loaded before the swap. Any other is loaded by its first request."""
        ...

    def lacks(self, name: str) -> bool:
        """Return True for a model that must be in memory after the apply and is not: also a live change loads it."""
        ...

    def loads(self, name: str) -> bool:
        """Return True for a model whose load an earlier run began and did not wait for."""
        ...

    @property
    def awaits_loads(self) -> bool:
        """False for a run that leaves the loads of earlier runs to them."""
        ...

    async def load(self, name: str, step: Step | None) -> None:
        """Open and probe the new unit of a model, next to the old one or in its place. Raises `Overtaken`."""
        ...

    async def swap(self, held: Container[str]) -> None:
        """Route names to the new units. A held model keeps its old unit, if it has one."""
        ...

    async def prune(self) -> None:
        """Delete the files that the plan listed, unless something refers to them now."""
        ...

    def record(self, result: Result) -> None:
        """Add the result to the revision."""
        ...


class Outcome(StrEnum):
    """How an apply ended after the commit. One that failed before the commit has the kind of its error instead."""

    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"


class Result(Struct, frozen=True, kw_only=True):
    """How an apply ended after the commit, and the outcome of each changed model."""

    outcome: Outcome
    message: str
    generation: int
    revision: str
    failures: Mapping[str, MullamaError] = field(default_factory=dict)
    touched: tuple[str, ...] = ()
    overtaken: bool = False
    """The run did not wait for all loads. It must run again."""

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


async def execute(
    plan: Plan, desired: Manifest, effects: Effects, report: Report, *, expendable: Container[str] = ()
) -> Result:
    """Execute a plan. Raises only before the commit, when nothing has changed.

    expendable: the models whose files do not end the run when they are missing or cannot be used.
    """
    steps = _model_steps(plan)
    unavailable = await prepare(plan, desired, effects, report, expendable=expendable)
    for name, error in unavailable.items():
        effects.leave_out(name, error)
    report({"event": "phase", "phase": "commit"})
    await effects.commit(plan)
    report({"event": "phase", "phase": "load"})
    loads = [name for name in load_order(desired) if name not in unavailable and _needs_load(name, steps, effects)]
    begun = [name for name in loads if effects.loads(name)]
    tried = await _load([name for name in loads if name not in begun], steps, effects, report)
    failures = {**unavailable, **tried.failures}
    report({"event": "phase", "phase": "swap"})
    await effects.swap({*failures, *tried.overtaken, *begun})
    overtaken = bool(tried.overtaken)
    if begun and effects.awaits_loads:
        late = await _load(begun, steps, effects, report)
        failures |= late.failures
        overtaken |= bool(late.overtaken)
        await effects.swap({*failures, *tried.overtaken, *late.overtaken})
    if any(step.kind == "files" for step in plan.steps) and not overtaken:
        report({"event": "phase", "phase": "prune"})
        await effects.prune()
    result = replace(_result(plan, tuple(steps), failures), overtaken=overtaken)
    effects.record(result)
    return result


async def prepare(
    plan: Plan, desired: Manifest, effects: Effects, report: Report, *, expendable: Container[str] = ()
) -> dict[str, ModelUnavailable]:
    """Download and check the files of all models that a plan changes; see `fetch`. All that is served stays."""
    steps = _model_steps(plan)
    report({"event": "phase", "phase": "fetch"})
    touched = {name for name in desired.models if _touches_files(steps.get(name))}
    return await fetch(desired, touched, effects, report, expendable=expendable)


def _model_steps(plan: Plan) -> dict[str, Step]:
    return {step.subject: step for step in plan.steps if step.kind == "model"}


async def fetch(
    desired: Manifest, names: Collection[str], effects: Effects, report: Report, *, expendable: Container[str] = ()
) -> dict[str, ModelUnavailable]:
    """Download the files of models in parallel and check each model; return the failures of expendable models.

    The first failure of any other model cancels the rest and is raised, unless the machine lacks a device: that
    concerns the model alone, as a load that fails.
    """
    slots = asyncio.Semaphore(max(1, desired.sources.parallel))
    left_out: dict[str, ModelUnavailable] = {}

    async def one(name: str, model: Model) -> None:
        try:
            async with slots:
                files = await effects.fetch(model, report, name)
                await effects.check(name, model, files)
        except MullamaError as error:
            if name not in expendable and not isinstance(error, DeviceMissing):
                raise
            if isinstance(error, ModelUnavailable):  # reported already, or its files are fetched after this run
                left_out[name] = error
                return
            left_out[name] = ModelUnavailable(error)
            report({"event": "step", "model": name, "state": "failed", "message": str(error)})

    try:
        async with asyncio.TaskGroup() as group:
            for name, model in desired.models.items():
                if name in names:
                    group.create_task(one(name, model))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return left_out


def _touches_files(step: Step | None) -> bool:
    """Return True for any change of a model, because each changed model is checked; stored files are found at once."""
    return step is not None and step.action is not Action.REMOVE


def load_order(desired: Manifest) -> list[str]:
    """Return the models by priority, then in the order of the manifest."""
    return sorted(desired.models, key=lambda name: -desired.models[name].residency.priority)


def _needs_load(name: str, steps: Mapping[str, Step], effects: Effects) -> bool:
    step = steps.get(name)
    if effects.loads(name):
        return True
    if step is None or step.action is Action.REMOVE:
        return False
    return step.cost not in (Cost.NONE, Cost.LIVE) or effects.lacks(name)


class _Loaded(Struct):
    """The models of one round of loads that are not ready."""

    failures: dict[str, MullamaError] = field(default_factory=dict)
    overtaken: list[str] = field(default_factory=list)


async def _load(names: Collection[str], steps: Mapping[str, Step], effects: Effects, report: Report) -> _Loaded:
    """Load models one after the other."""
    result = _Loaded()
    for name in names:
        if not effects.wants(name):
            report({"event": "step", "model": name, "state": "idle", "message": "loads with its first request"})
            continue
        report({"event": "step", "model": name, "state": "loading", "message": ""})
        try:
            await effects.load(name, steps.get(name))
        except Overtaken:
            result.overtaken.append(name)
        except MullamaError as error:
            result.failures[name] = error
            report({"event": "step", "model": name, "state": "failed", "message": str(error)})
        else:
            report({"event": "step", "model": name, "state": "ready", "message": ""})
    return result


def _result(plan: Plan, touched: tuple[str, ...], failures: Mapping[str, MullamaError]) -> Result:
    applied = f"revision {plan.generation} is applied" + (f" (only {', '.join(plan.targets)})" if plan.targets else "")
    if failures:
        names = ", ".join(failures)
        message, outcome = f"{applied}, except {names}", Outcome.PARTLY_APPLIED
    else:
        message, outcome = applied, Outcome.APPLIED
    return Result(
        outcome=outcome,
        message=message,
        generation=plan.generation,
        revision=plan.desired,
        failures=failures,
        touched=touched,
    )
