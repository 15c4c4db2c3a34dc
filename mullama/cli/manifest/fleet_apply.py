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
from mullama.cli.on_fleet.plan_file import (
    SavedFleetPlan,
    load_fleet_plan,
    require_fresh,
    require_same_manifest,
)
from mullama.cli.on_fleet.rollout import carry_out
from mullama.errors import Refused, Unavailable
from mullama.plan.steps import Step
from mullama.reconcile.lock import require_pins
from mullama.reconcile.pins import read_lock
from mullama.targets.fleet.plan import FleetPlan, blocked_text
from mullama.targets.fleet.plan_views import fleet_lines, fleet_tree
from mullama.targets.fleet.recorder import model_places
from mullama.targets.fleet.stages import stages_of

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

_FOR_ONE_SERVER = ("refresh_only", "log_level", "no_wait")


def apply_fleet(call: CommandContext, loaded: LoadedManifest) -> int:
    """Apply the manifest of a fleet. Raises the reason why a host cannot be planned; nothing is changed then."""
    for name in _FOR_ONE_SERVER:
        if getattr(call.options, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for one server, and the manifest is of a fleet", hint=f"leave out {option}")
    saved = load_fleet_plan(call.folder / call.options.plan) if call.options.plan is not None else None
    targets = _targets(call, saved)
    if not loaded.manifest.models and not targets and not call.options.allow_empty:
        raise Refused(
            "the manifest has no models: applying it would remove every model of the fleet",
            hint="--allow-empty applies it",
        )
    fleet = fleet_of(call, loaded, saved.away if saved is not None else ())
    if saved is not None:
        require_same_manifest(saved, fleet.loaded.manifest)
    if call.options.locked:
        require_pins(fleet.loaded.manifest, read_lock(fleet.loaded.path))
    plan = fleet_plan(call, fleet, targets)
    _show(call, plan)
    _require_complete(plan)
    if saved is not None:
        require_fresh(saved, plan)
    if call.options.offline:
        _require_stored(plan)
    if not plan.draft.steps:
        return DONE
    if not _confirmed(call, plan.changes):
        call.terminal.note("nothing was changed")
        return REFUSED
    revisions = {name: seen.revision for name, seen in plan.draft.seen.hosts.items()}
    return carry_out(
        call,
        fleet,
        lambda fence: stages_of(
            plan,
            fleet=fleet.name,
            fence=fence,
            by=user(),
            version=mullama.__version__,
            offline=call.options.offline,
            locked=call.options.locked,
        ),
        revisions,
        model_places(fleet.loaded.manifest, plan.draft),
    )


def _targets(call: CommandContext, saved: SavedFleetPlan | None) -> tuple[str, ...]:
    """Return the names of --target, or those of the saved plan. Raise `UsageError` if both are given and differ."""
    given = tuple(call.options.target)
    if saved is None:
        return given
    if given and not set(given) <= set(saved.targets):
        raise UsageError("--target: the saved plan has other targets", hint="leave out --target, or save another plan")
    return saved.targets


def _require_stored(plan: FleetPlan) -> None:
    """Raise `Unavailable` if a host would download files."""
    for name, own in plan.plans.items():
        lacking = [step.subject for step in own.steps if step.bytes_download != 0]
        if lacking:
            raise Unavailable(
                f"--offline: {name} lacks the files of {', '.join(lacking[:8])}", hint="nothing was changed"
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
