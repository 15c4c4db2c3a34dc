"""`mullama down` of a fleet: stops the server of every host, after a confirmation in all cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.exit_codes import DONE, PARTLY, REFUSED
from mullama.cli.on_fleet.fleet_call import FleetCall
from mullama.cli.on_fleet.views import errors_of, good
from mullama.cli.server.background import stop
from mullama.errors import Conflict, MullamaError, Refused
from mullama.plan.report import Line
from mullama.struct import replace
from mullama.targets.fleet.hosts import FleetHostPort, on_each
from mullama.targets.fleet.lease import FleetLeaseHold
from mullama.units import counted


def down(call: CommandContext, fleet: FleetCall, plan_of: Callable[[FoundServer], Sequence[Line]]) -> int:
    """Show the models of each host, ask, and stop all servers. plan_of: returns the lines for one server.

    The servers start again on their own machines alone, so a script needs --yes. Raises `Conflict` while another
    command changes the fleet.
    """
    if call.options.force:
        raise UsageError("--force kills a server of this machine, and the manifest is of a fleet", hint="leave it out")

    def lines(host: FleetHostPort) -> Sequence[Line]:
        return plan_of(FoundServer(client=fleet.hosts[host.name].client))

    for name, answer in on_each(fleet.hosts.values(), lines).items():
        if isinstance(answer, MullamaError):
            call.terminal.note(f"error: {answer.message}")
            continue
        call.terminal.line(f"{name}:")
        call.terminal.toned(replace(line, text=f"  {line.text}") for line in answer)
    if not call.options.yes:
        if not call.terminal.interactive:
            raise Refused(
                "down stops the servers of all hosts, and there is no terminal to confirm it", hint="--yes confirms it"
            )
        servers = counted(len(fleet.hosts), "server")
        if not call.terminal.confirm(f"Stop {servers}? Each must be started again on its own machine"):
            call.terminal.note("nothing was changed")
            return REFUSED
    require_no_change(fleet)

    def ended(host: FleetHostPort) -> bool:
        stop(FoundServer(client=fleet.hosts[host.name].client), within=call.options.timeout, force=False)
        return True

    answers = on_each(fleet.hosts.values(), ended)
    for error in errors_of(answers):
        call.terminal.note(f"error: {error.message}")
    call.terminal.line(f"{counted(len(good(answers)), 'server')} stopped")
    return PARTLY if errors_of(answers) else DONE


def require_no_change(fleet: FleetCall) -> None:
    """Raise `Conflict` if another command holds the lease of the fleet. Hosts that do not answer hold nothing."""
    try:
        with FleetLeaseHold(list(fleet.hosts.values()), fleet.name, fleet.holder, away=len(fleet.away)):
            pass
    except Conflict:
        raise
    except MullamaError:
        return
