"""`mullama down`: unloads all models and stops the server of a manifest."""

from __future__ import annotations

from typing import Any

from mullama.cli.api_client.discover import FoundServer, find
from mullama.cli.app.context import CommandContext, Parser, manifest_options, server_options, timeout_option, yes_option
from mullama.cli.app.exit_codes import DONE, REFUSED
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.cli.on_ray.options import on_cluster, place_options
from mullama.cli.server.background import stop
from mullama.errors import Unavailable
from mullama.plan.report import Line
from mullama.units import size


def down_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    place_options(parser)
    yes_option(parser)
    timeout_option(parser, "2m")
    parser.add_argument("--force", action="store_true", help="kill a server that does not stop within the time limit")


def down(call: CommandContext) -> int:
    """Show the models to unload, ask, and stop the server; return after its process ended."""
    if on_cluster(call, "force"):
        from mullama.cli.on_ray import commands

        return commands.down(call)
    if (fleet := find_fleet(call)) is not None:
        from mullama.cli.manifest.fleet_down import down as down_fleet

        return down_fleet(call, fleet, plan_of)
    server = find(call)
    if server is None:
        call.terminal.line("no server is running; nothing to stop")
        return DONE
    call.terminal.toned(plan_of(server))
    if not may_stop(call):
        call.terminal.note("nothing was changed")
        return REFUSED
    stop(server, within=call.options.timeout, force=call.options.force)
    call.terminal.line("the server is stopped")
    return DONE


def plan_of(server: FoundServer) -> tuple[Line, ...]:
    """Return a line for each model with the memory that it frees, then one for the server.

    A server that does not answer has only its own line.
    """
    where = f"pid {server.record.pid}" if server.record else str(server.client.address)
    try:
        status = server.client.get("/api/v1/status")
    except Unavailable:
        return (Line(f"- server  {where}, which does not answer", "remove"),)
    models = tuple(_line(model) for model in status.get("models", ()))
    listen = ", ".join(status.get("listen", ()))
    return (*models, Line(f"- server  {where}, {listen}", "remove"))


def _line(model: dict[str, Any]) -> Line:
    memory = model.get("memory_own", model.get("memory")) or 0  # weights and contexts that models share count once
    freed = f", frees {size(memory)}" if memory else ""
    return Line(f"- {model['name']}  {model.get('state', '')}: unload{freed}; files kept", "remove")


def may_stop(call: CommandContext) -> bool:
    """Ask for confirmation on a terminal. A script needs none: no file is lost, and a command starts a server again."""
    return call.options.yes or not call.terminal.interactive or call.terminal.confirm("Stop the server?")
