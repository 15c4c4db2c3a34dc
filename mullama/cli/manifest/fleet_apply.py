"""`mullama apply` of a fleet: shows the plan of every host, asks, and carries it out under the lease."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import mullama
from mullama.cli.api_client.discover import user
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.cli.manifest.fleet_diff import fleet_plan
from mullama.cli.on_fleet.fleet_call import fleet_of
from mullama.cli.on_fleet.rollout import carry_out
from mullama.errors import Refused
from mullama.plan.steps import Step
from mullama.targets.fleet.plan import FleetPlan, blocked_text
from mullama.targets.fleet.plan_views import fleet_lines, fleet_tree
from mullama.targets.fleet.stages import stages_of

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

_FOR_ONE_SERVER = ("plan", "target", "refresh_only", "offline", "locked", "log_level", "no_wait")


def apply_fleet(call: CommandContext, loaded: LoadedManifest) -> int:
    """Apply the manifest of a fleet. Raises the reason why a host cannot be planned; nothing is changed then."""
    for name in _FOR_ONE_SERVER:
        if getattr(call.options, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for one server, and the manifest is of a fleet", hint=f"leave out {option}")
    if not loaded.manifest.models and not call.options.allow_empty:
        raise Refused(
            "the manifest has no models: applying it would remove every model of the fleet",
            hint="--allow-empty applies it",
        )
    fleet = fleet_of(call, loaded)
    plan = fleet_plan(call, fleet)
    _show(call, plan)
    _require_complete(plan)
    if not plan.draft.steps:
        return DONE
    if not _confirmed(call, plan.changes):
        call.terminal.note("nothing was changed")
        return REFUSED
    revisions = {name: seen.revision for name, seen in plan.draft.seen.hosts.items()}
    return carry_out(
        call,
        fleet,
        lambda fence: stages_of(plan.draft, fleet=fleet.name, fence=fence, by=user(), version=mullama.__version__),
        revisions,
    )


def _show(call: CommandContext, plan: FleetPlan) -> None:
    if call.options.json:
        call.terminal.raw(json.dumps({"event": "plan", "plan": fleet_tree(plan)}, ensure_ascii=False) + "\n")
    else:
        call.terminal.toned(fleet_lines(plan))


def _require_complete(plan: FleetPlan) -> None:
    for error in plan.faults.values():
        raise error
    for unplaced in plan.draft.placement.unplaced:
        raise Refused(f"no place for a model: {unplaced.reason}", hint="nothing was changed")
    for model in plan.draft.order.blocked:
        raise Refused(blocked_text(model), hint="nothing was changed")


def _confirmed(call: CommandContext, steps: Iterable[Step]) -> bool:
    """Ask on a terminal. Elsewhere raise `Refused` for a plan that pauses or removes something, without --yes."""
    if call.options.yes:
        return True
    if call.terminal.interactive and not call.options.json:
        return call.terminal.confirm("Apply this to the fleet?")
    if any(step.pause or step.destructive for step in steps):
        raise Refused(
            "the plan pauses or removes models, and there is no terminal to confirm it",
            hint="--yes applies it; mullama diff shows it",
        )
    return True
