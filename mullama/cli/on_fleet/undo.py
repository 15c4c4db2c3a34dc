"""`mullama undo` of a fleet: the hosts that changed in its last apply go back, the last step first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mullama.cli.api_client.discover import user
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.cli.on_fleet.fleet_call import FleetCall
from mullama.cli.on_fleet.rollout import carry_out
from mullama.errors import MullamaError, Refused
from mullama.runtime.fleet import StepMark
from mullama.targets.fleet.execute import Stage
from mullama.targets.fleet.hosts import HostStep, on_each
from mullama.targets.fleet.undo import FleetUndo, plan_undo
from mullama.units import counted


def undo(call: CommandContext, fleet: FleetCall) -> int:
    """Show the hosts that go back, ask, and restore them. Raises the error of a host that does not answer."""
    if call.options.to is not None:
        raise UsageError(
            "--to is the number of a revision, which each host of a fleet has of its own",
            hint="mullama undo --host URL --to N goes back on one host",
        )
    answers = on_each(fleet.hosts.values(), lambda host: host.get("/api/v1/history")["generations"])
    histories: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name, answer in answers.items():
        if isinstance(answer, MullamaError):
            raise answer
        histories[name] = answer
    plan = plan_undo(fleet.name, histories)
    if not call.options.json:
        for text in undo_lines(plan):
            call.terminal.line(text)
        for name in fleet.away:
            call.terminal.line(f"  {name}: stays as it is, because it is away")
    if not plan.stages:
        return DONE
    if not call.options.yes:
        if not call.terminal.interactive or call.options.json:
            raise Refused("undo may unload models and there is no terminal to confirm it", hint="--yes confirms it")
        if not call.terminal.confirm(f"Go back on {counted(len(hosts_of(plan)), 'host')}?"):
            call.terminal.note("nothing was changed")
            return REFUSED
    revisions = {name: str(kept[0]["revision"]) for name, kept in histories.items() if kept}
    return carry_out(call, fleet, lambda fence: undo_stages(plan, fleet.name, fence, user()), revisions)


def hosts_of(plan: FleetUndo) -> tuple[str, ...]:
    """Return the hosts that go back, by name."""
    return tuple(sorted({name for stage in plan.stages for name in stage}))


def undo_lines(plan: FleetUndo) -> list[str]:
    """Return the plan for people: where each host ends, and the hosts that stay as they are."""
    ends = {name: number for stage in plan.stages for name, number in stage.items()}
    lines = [f"  {name}: back to revision {ends[name]}" for name in hosts_of(plan)]
    return [*lines, *(f"  {name}: stays as it is, because {reason}" for name, reason in plan.kept.items())]


def undo_stages(plan: FleetUndo, fleet: str, fence: int, by: str) -> list[Stage]:
    """Return the stages of an undo under a fence."""
    return [
        Stage(
            title="go back",
            steps={
                name: HostStep(to=to, fence=fence, mark=str(StepMark(fleet, fence, number)), by=by)
                for name, to in stage.items()
            },
        )
        for number, stage in enumerate(plan.stages, 1)
    ]
