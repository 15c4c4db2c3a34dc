"""`mullama diff` of a fleet: the plan of every host, and the order in which they would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import mullama
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.manifest.findings import show_findings
from mullama.cli.on_fleet.fleet_call import FleetCall, fleet_of
from mullama.cli.on_fleet.plan_file import save_fleet_plan
from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.plan import findings
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import located
from mullama.reconcile.files import Files
from mullama.reconcile.lock import with_lock
from mullama.reconcile.pins import read_lock, read_locked_tools
from mullama.struct import replace
from mullama.targets.fleet.observe import FleetObservation, observe_fleet
from mullama.targets.fleet.plan import FleetPlan, draft_fleet, plan_fleet
from mullama.targets.fleet.plan_views import fleet_lines, fleet_markdown, fleet_tree

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest


def show_fleet(call: CommandContext, loaded: LoadedManifest) -> FleetPlan:
    """Show the plans of all hosts in the format of the command, and return them."""
    if call.options.policy:
        raise UsageError("--policy is for one server, and the manifest is of a fleet", hint="leave out --policy")
    fleet = fleet_of(call, loaded)
    plan = fleet_plan(call, fleet, call.options.target)
    if call.options.out:
        save_fleet_plan(call.folder / call.options.out, plan, fleet.loaded.manifest)
    match call.options.format:
        case "json":
            call.terminal.json(fleet_tree(plan))
        case "markdown":
            call.terminal.raw(fleet_markdown(plan, fleet.name) + "\n")
        case "github" | "sarif" | "junit" as form:
            found = [finding for own in plan.plans.values() for finding in findings.of_plan(own)]
            show_findings(call, form, "mullama diff", found)
            for text in plan.problems:
                call.terminal.note(text)
        case _:
            call.terminal.toned(fleet_lines(plan))
    return plan


def fleet_plan(call: CommandContext, fleet: FleetCall, targets: Sequence[str]) -> FleetPlan:
    """Observe all hosts of a fleet and return their plans. Changes nothing; the role `read` is enough.

    targets: the models and routes that the plan is limited to; none for the whole manifest.
    """
    require_fleet_options(call)
    loaded, hosts = fleet.loaded, tuple(fleet.hosts.values())
    if loaded.path is not None:
        pins, tools = read_lock(loaded.path), read_locked_tools(loaded.path)
        loaded = replace(loaded, manifest=with_lock(loaded.manifest, pins, tools))
    seen = observe_fleet(hosts, mullama.__version__)
    seen = FleetObservation(hosts=seen.hosts, faults=_in_order(loaded.manifest, {**fleet.faults, **seen.faults}))
    draft = draft_fleet(loaded.manifest, seen, known_files(call, loaded), targets)
    plan = plan_fleet(draft, hosts, mullama.__version__)
    return replace(plan, plans={name: located(own, loaded.places) for name, own in plan.plans.items()})


def require_fleet_options(call: CommandContext) -> None:
    """Raise `UsageError` for options that are for one server."""
    if call.options.host or call.env.get("MULLAMA_HOST"):
        raise UsageError(
            "--host is one server, and the manifest names the servers of a fleet",
            hint="remove --host and MULLAMA_HOST, or use a manifest without fleet",
        )


def _in_order(manifest: Manifest, faults: Mapping[str, MullamaError]) -> dict[str, MullamaError]:
    return {name: faults[name] for name in manifest.fleet.hosts if name in faults}


def known_files(call: CommandContext, loaded: LoadedManifest) -> dict[str, KnownFiles]:
    """Return what the lock file and the store of this machine know of the sources, for the memory of the models."""
    return Files.here(call.env).known([loaded.manifest], read_lock(loaded.path))
