"""Carries out the stages of a fleet under its lease, shows their progress by host, and the table of the end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mullama.cli.app.context import CommandContext
from mullama.cli.app.exit_codes import DONE, INTERRUPTED, PARTLY, outcome_code
from mullama.cli.console.progress import ApplyProgress, fold, log_lines
from mullama.cli.on_fleet.fleet_call import FleetCall
from mullama.runtime.fleet import RolloutModel
from mullama.targets.fleet.execute import STEP_SECONDS, FleetOutcome, FleetRun, Stage
from mullama.targets.fleet.lease import FleetLeaseHold
from mullama.targets.fleet.recorder import RolloutRecorder, RolloutSubject
from mullama.units import counted


def carry_out(
    call: CommandContext, fleet: FleetCall, stages: Callable[[int], Sequence[Stage]], revisions: Mapping[str, str],
    models: Mapping[str, RolloutModel] | None = None,
) -> int:  # fmt: skip
    """Carry out stages and return the exit code.

    stages: returns them for the fence of the lease. revisions: what each host served when the plan was made. models:
    their places at the end; None for an undo.
    """
    view, options = _RolloutView(call), call.options
    asks = call.terminal.interactive and not options.json
    with FleetLeaseHold(list(fleet.hosts.values()), fleet.name, fleet.holder, away=len(fleet.away)) as lease:
        recorder = RolloutRecorder(list(fleet.hosts.values()), _subject(fleet, models), lease.fence)
        run = FleetRun(
            fleet.hosts, stages(lease.fence), revisions,
            require=lease.require, observe=view.observe, confirm=call.terminal.confirm if asks else None,
            changed=recorder.changed, within=STEP_SECONDS if math.isinf(options.timeout) else options.timeout,
        )  # fmt: skip
        try:
            with recorder.follow(run):
                outcome = run.run()
        except KeyboardInterrupt:
            view.show(run.outcome)
            raise
    view.show(outcome)
    for name in fleet.away:
        call.terminal.note(f"{name} is away and was not changed: mullama diff shows what it lacks when it is back")
    return exit_code_of(outcome)


def _subject(fleet: FleetCall, models: Mapping[str, RolloutModel] | None) -> RolloutSubject:
    return RolloutSubject(
        fleet=fleet.name, kind="undo" if models is None else "apply", holder=fleet.holder,
        urls={name: host.url for name, host in fleet.loaded.manifest.fleet.hosts.items()}, models=models or {},
    )  # fmt: skip


def exit_code_of(outcome: FleetOutcome) -> int:
    """Return 0 for a complete rollout, 8 for a paused one, and else the code of the first host that failed."""
    match outcome.ended:
        case "applied":
            return DONE
        case "paused":
            return PARTLY
        case "interrupted":
            return INTERRUPTED
        case "failed":
            return outcome_code(outcome.outcome)


def outcome_lines(outcome: FleetOutcome) -> list[str]:
    """Return the sentences under the table."""
    hints = dict.fromkeys(host.hint for host in outcome.hosts.values() if host.state == "failed" and host.hint)
    lines = [f"hint: {hint}" for hint in hints]
    match outcome.ended:
        case "applied":
            return lines
        case "paused":
            return [*lines, "paused after the canary: mullama apply continues"]
        case _:
            return [*lines, "mullama apply continues; mullama undo goes back on the hosts that changed"]


class _RolloutView:
    """Lines of progress with the name of their host, or NDJSON."""

    def __init__(self, call: CommandContext) -> None:
        self._terminal, self._json = call.terminal, bool(call.options.json)
        self._progress: dict[str, ApplyProgress] = {}

    def observe(self, host: str, event: Mapping[str, Any]) -> None:
        if self._json:
            self._write({**event, "host": host} if host else event)
            return
        for text in self._texts(host, event):
            self._terminal.line(text)

    def _texts(self, host: str, event: Mapping[str, Any]) -> Sequence[str]:
        match event["event"]:
            case "stage":
                self._progress.clear()
                return [f"step {event['number']} of {event['of']}: {event['title']} on {', '.join(event['hosts'])}"]
            case "pause":
                return [f"pause of {event['seconds']:g} s"]
            case "slow":
                return [f"  {host}: {event['message']}"]
            case "host":
                message = f": {event['message']}" if event["message"] else ""
                return [f"  {host}: {event['state']}{message}"]
            case _:
                before = self._progress.get(host, ApplyProgress())
                after = self._progress[host] = fold(before, event)
                return [f"  {host}: {text.strip()}" for text in log_lines(before, after)]

    def show(self, outcome: FleetOutcome) -> None:
        if self._json:
            self._write(outcome.tree())
            return
        self._terminal.line()
        heads = ("HOST", "RESULT", "STEPS", "REVISION", "MESSAGE")
        rows = [
            (
                name, host.state, f"{host.done} of {host.steps}" if host.steps else "-",
                "-" if host.generation is None else str(host.generation), host.message or "-",
            )
            for name, host in outcome.hosts.items()
        ]  # fmt: skip
        self._terminal.table(heads, rows)
        for text in outcome_lines(outcome):
            self._terminal.note(text)
        changed = sum(host.state == "changed" for host in outcome.hosts.values())
        if outcome.ended == "applied":
            self._terminal.line(f"{counted(changed, 'host')} changed")

    def _write(self, event: Mapping[str, Any]) -> None:
        self._terminal.out.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._terminal.out.flush()
