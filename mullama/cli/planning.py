"""The plan for a manifest: asked of the server that runs, or worked out here from what is on the disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mullama.cli.call import Call
from mullama.cli.locate import Server, records_of
from mullama.errors import MullamaError
from mullama.plan.report import located
from mullama.plan.steps import Cause, Plan, from_tree

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest


def plan_for(call: Call, loaded: LoadedManifest, server: Server | None) -> Plan:
    """What apply would do now, each step with its place in the manifest."""
    if server is None:
        return _plan_here(call, loaded)
    from mullama.manifest.tree import manifest_to_tree

    return located(plan_by_server(server, manifest_to_tree(loaded.manifest)), loaded.places)


def plan_by_server(server: Server, tree: dict[str, Any]) -> Plan:
    answer = server.client.post("/api/v1/plan", {"manifest": tree, "options": {}})
    try:
        return from_tree(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise MullamaError(
            f"{server.client.address} sent a plan that this version cannot read: {error}",
            hint="the server may be of another version: mullama down, then mullama apply",
        ) from error


def _plan_here(call: Call, loaded: LoadedManifest) -> Plan:
    from mullama.cli.wiring import observe_here
    from mullama.plan.make import make_plan

    observed = observe_here(loaded.manifest, records_of(call, loaded), call.env)
    return make_plan(loaded.manifest, observed, loaded.places)


def plan_between(base: LoadedManifest, wish: LoadedManifest) -> Plan:
    """What differs between two revisions of the manifest; needs no machine and no network.

    Nothing was observed, so what a plan would call drift is no part of it.
    """
    from mullama.manifest.tree import revision
    from mullama.plan.make import make_plan
    from mullama.plan.observed import Applied, Observed

    applied = Applied(generation=0, revision=revision(base.manifest), manifest=base.manifest)
    plan = make_plan(wish.manifest, Observed(applied=applied), wish.places)
    return replace(plan, steps=tuple(step for step in plan.steps if step.cause is Cause.WISH))
