"""The plan for a manifest: asked of the server that runs, or worked out here from what is on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mullama.cli.call import Call
from mullama.cli.locate import Server, records_of
from mullama.errors import MullamaError
from mullama.plan.report import located
from mullama.plan.steps import Plan, from_tree

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest


def manifest_tree(loaded: LoadedManifest) -> dict[str, Any]:
    """The resolved manifest as the JSON tree that a server reads."""
    from mullama.manifest.tree import block_to_tree

    return block_to_tree(loaded.manifest)


def plan_for(call: Call, loaded: LoadedManifest, server: Server | None) -> Plan:
    """What apply would do now, each step with its place in the manifest."""
    if server is None:
        return _plan_here(call, loaded)
    return located(plan_by_server(server, manifest_tree(loaded)), loaded.places)


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
    """What differs between two revisions of the manifest; needs no machine and no network."""
    from mullama.manifest.tree import revision
    from mullama.plan.make import make_plan
    from mullama.plan.observed import Applied, Observed

    applied = Applied(generation=0, revision=revision(base.manifest), manifest=base.manifest)
    return make_plan(wish.manifest, Observed(applied=applied, live={}), wish.places)
