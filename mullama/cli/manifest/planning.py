"""The plan of a manifest: made by the running server, or here from the facts on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, records_of
from mullama.cli.app.context import CommandContext
from mullama.errors import Invalid, MullamaError
from mullama.names import BuiltinRef, PathRef, parse_source
from mullama.plan.steps import Cause, Plan, from_tree, located
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.plan.observed import KnownFiles


def plan_for(call: CommandContext, loaded: LoadedManifest, server: FoundServer | None) -> Plan:
    """Return the plan of an apply, each step with its location in the manifest."""
    if server is None:
        return _plan_locally(call, loaded)
    from mullama.manifest.tree import manifest_to_tree

    return located(plan_by_server(server, manifest_to_tree(loaded.manifest)), loaded.places)


def plan_by_server(server: FoundServer, tree: dict[str, Any]) -> Plan:
    """Return the plan that the server makes for a resolved manifest."""
    options = {"trigger": "apply", "allow_empty": True}
    answer = server.client.post("/api/v1/plan", {"manifest": tree, "options": options})
    try:
        return from_tree(answer)
    except Invalid as error:
        raise MullamaError(
            f"{server.client.address} sent a plan that this version cannot read: {error}",
            hint="the server may have another version: mullama down, then mullama apply",
        ) from error


def _plan_locally(call: CommandContext, loaded: LoadedManifest) -> Plan:
    from mullama.plan.make import make_plan
    from mullama.reconcile.files import Files, read_lock
    from mullama.reconcile.observe import observe
    from mullama.reconcile.overlay import combine, models_beside

    records = records_of(call, loaded)
    overlay = records.overlay()
    desired = combine(loaded.manifest, overlay)
    observed = observe(desired, records, Files.here(call.env), read_lock(loaded.path))
    beside = models_beside(loaded.manifest, overlay)
    return located(make_plan(desired, observed, beside=beside), loaded.places)


def plan_between(base: LoadedManifest, desired: LoadedManifest) -> Plan:
    """Return the steps between two versions of the manifest, without this machine and without a network.

    Nothing is observed, so steps caused by drift are left out. Sizes and memory come from the lock file.
    """
    from mullama.manifest.tree import revision
    from mullama.plan.make import make_plan
    from mullama.plan.observed import Applied, Observed

    applied = Applied(generation=0, revision=revision(base.manifest), manifest=base.manifest)
    observed = Observed(applied=applied, files=_pinned_files(base, desired))
    plan = located(make_plan(desired.manifest, observed), desired.places)
    return replace(plan, steps=tuple(step for step in plan.steps if step.cause is Cause.DESIRED))


def _pinned_files(base: LoadedManifest, desired: LoadedManifest) -> dict[str, KnownFiles]:
    """Return the files that the lock file pins. Built-in and local files count as stored."""
    from mullama.plan.observed import KnownFiles
    from mullama.reconcile.files import pinned, read_lock

    sources = {
        source
        for loaded in (base, desired)
        for model in loaded.manifest.models.values()
        for source in (*model.sources, *model.adapter_sources)
    }
    lock = read_lock(desired.path)
    stored = {
        s: KnownFiles(source=s, stored=True) for s in sources if isinstance(parse_source(s), (BuiltinRef, PathRef))
    }
    return stored | {source: pinned(lock[source]) for source in sources & lock.keys()}
