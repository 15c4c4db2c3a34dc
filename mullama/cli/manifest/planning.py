"""The plan of a manifest: made by the running server, or here from the facts on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, StartManifest, records_of
from mullama.cli.app.context import CommandContext
from mullama.errors import BadWeights, Invalid, MullamaError, NotFound
from mullama.names import BuiltinRef, PathRef, parse_source
from mullama.plan.steps import Cause, Plan, from_tree, located
from mullama.problems import Problem
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.plan.observed import KnownFiles
    from mullama.plan.targets import TargetedManifest


def plan_for(
    call: CommandContext, loaded: LoadedManifest, server: FoundServer | None, targets: Sequence[str] = ()
) -> Plan:
    """Return the plan of an apply, each step with its location in the manifest.

    targets: the models and routes that the plan is limited to; none for the whole manifest.
    """
    if server is None:
        return _plan_locally(call, loaded, targets)
    from mullama.manifest.tree import manifest_to_tree

    return located(plan_by_server(server, manifest_to_tree(loaded.manifest), targets), loaded.places)


def plan_by_server(server: FoundServer, tree: dict[str, Any], targets: Sequence[str] = ()) -> Plan:
    """Return the plan that the server makes for a resolved manifest."""
    options: dict[str, Any] = {"trigger": "apply", "allow_empty": True}
    if targets:  # a server of an earlier version refuses the option
        options["targets"] = list(targets)
    answer = server.client.post("/api/v1/plan", {"manifest": tree, "options": options})
    try:
        return from_tree(answer)
    except Invalid as error:
        raise MullamaError(
            f"{server.client.address} sent a plan that this version cannot read: {error}",
            hint="the server may have another version: mullama down, then mullama apply",
        ) from error


def _plan_locally(call: CommandContext, loaded: LoadedManifest, targets: Sequence[str]) -> Plan:
    from mullama.plan.make import make_plan
    from mullama.reconcile.files import Files
    from mullama.reconcile.observe import observe
    from mullama.reconcile.overlay import combine, models_beside
    from mullama.reconcile.pins import read_lock

    if any(model.scale is not None for model in loaded.manifest.models.values()):
        from mullama.controller.runs.change import check_one_machine

        check_one_machine(loaded.manifest)
    records = records_of(call, loaded)
    overlay = records.overlay()
    part = _part(call, loaded, targets)
    manifest = part.manifest if part is not None else loaded.manifest
    desired = combine(manifest, overlay)
    observed = observe(desired, records, Files.here(call.env), read_lock(loaded.path))
    beside = models_beside(manifest, overlay)
    if part is None:
        return located(make_plan(desired, observed, beside=beside), loaded.places)
    from mullama.plan.targets import plan_targets

    plan = plan_targets(part, desired, observed, beside=beside, served=False, path=loaded.path)
    return located(plan, loaded.places)


def drift_of(call: CommandContext, start: StartManifest, server: FoundServer | None) -> Plan:
    """Return the plan from the observed state to the applied revision. start: names the state folder."""
    if server is not None:
        return from_tree(server.client.get("/api/v1/drift"))
    from mullama.plan.make import EMPTY, make_plan
    from mullama.reconcile.files import Files
    from mullama.reconcile.observe import last_applied, observe
    from mullama.reconcile.pins import read_lock

    applied = last_applied(start.records)
    manifest = applied.manifest if applied is not None else EMPTY
    observed = observe(manifest, start.records, Files.here(call.env), read_lock(start.loaded.path))
    plan = make_plan(manifest, observed)
    return replace(plan, steps=tuple(step for step in plan.steps if step.cause is Cause.DRIFT))


def require_files(call: CommandContext, plan: Plan, loaded: LoadedManifest) -> None:
    """Raise `NotFound` or `BadWeights` if the plan names files that cannot be loaded on the machine of the models."""
    from mullama.manifest.nodes import longest_prefix

    found = [(f"models.{step.subject}.{file.path}", file) for step in plan.steps for file in step.unusable]
    if not found:
        return
    problems = [Problem(path, longest_prefix(path, loaded.places), file.reason, file.hint) for path, file in found]
    missing = all(file.missing for _, file in found)
    text = str(problems[0])
    if len(problems) > 1:
        for problem in problems:
            call.terminal.note(str(problem))
        text = f"{len(problems)} files of the manifest {'do not exist' if missing else 'cannot be used'}"
    raise NotFound(text) if missing else BadWeights(text)


def require_undisturbed(call: CommandContext, loaded: LoadedManifest, targets: Sequence[str]) -> None:
    """Raise `Refused` for targets of a manifest that a server would apply as a whole as soon as it starts."""
    if (part := _part(call, loaded, targets)) is not None:
        from mullama.plan.targets import require_undisturbed

        require_undisturbed(part.manifest, loaded.path)


def _part(call: CommandContext, loaded: LoadedManifest, targets: Sequence[str]) -> TargetedManifest | None:
    """Return the last applied manifest with the targets; None without targets."""
    if not targets:
        return None
    from mullama.plan.targets import targeted
    from mullama.reconcile.observe import last_manifest

    return targeted(loaded.manifest, last_manifest(records_of(call, loaded)), targets)


def plan_between(base: LoadedManifest, desired: LoadedManifest, targets: Sequence[str] = ()) -> Plan:
    """Return the steps between two versions of the manifest, without this machine and without a network.

    Nothing is observed, so steps caused by drift are left out. Sizes and memory come from the lock file. targets: see
    `plan_for`.
    """
    from mullama.manifest.tree import revision
    from mullama.plan.make import make_plan
    from mullama.plan.observed import Applied, Observed
    from mullama.plan.targets import plan_targets, targeted

    applied = Applied(generation=0, revision=revision(base.manifest), manifest=base.manifest)
    observed = Observed(applied=applied, files=_pinned_files(base, desired))
    if targets:
        part = targeted(desired.manifest, base.manifest, targets)
        plan = plan_targets(part, part.manifest, observed, served=True, path=None)
    else:
        plan = make_plan(desired.manifest, observed)
    plan = located(plan, desired.places)
    return replace(plan, steps=tuple(step for step in plan.steps if step.cause is Cause.DESIRED))


def _pinned_files(base: LoadedManifest, desired: LoadedManifest) -> dict[str, KnownFiles]:
    """Return the files that the lock file pins. Built-in and local files count as stored."""
    from mullama.plan.observed import KnownFiles
    from mullama.reconcile.pins import pinned, read_lock

    sources = {
        source
        for loaded in (base, desired)
        for model in loaded.manifest.models.values()
        for source in model.all_sources
    }
    lock = read_lock(desired.path)
    stored = {
        s: KnownFiles(source=s, stored=True) for s in sources if isinstance(parse_source(s), (BuiltinRef, PathRef))
    }
    return stored | {source: pinned(lock[source]) for source in sources & lock.keys()}


def if_match(plan: Plan) -> dict[str, str]:
    """Return the header by which the server refuses a plan of another revision than the applied one."""
    return {"If-Match": f'"{plan.base}"'}
