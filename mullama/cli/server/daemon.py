"""`mullama daemon` and `mullama ping`: control a server in the background and check that it answers."""

from __future__ import annotations

import time
from typing import Any

import mullama
from mullama.cli.api_client.discover import FoundServer, find, require
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option, timeout_option
from mullama.cli.app.exit_codes import DONE, NO_CONNECTION
from mullama.cli.server import background, logs
from mullama.cli.server.ensure import instance_options, start_server
from mullama.cli.server.serve import BRAVE, implicit_options, implicit_settings, overlay_of

ACTIONS = ("start", "stop", "restart", "status", "logs")


def daemon_options(parser: Parser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    instance_options(parser, other_f=True)
    implicit_options(parser)
    parser.add_argument("--force", action="store_true", help="for stop and restart: kill a server that hangs")
    parser.add_argument(
        "-n", "--lines", type=int, default=50, metavar="N", help="for logs: number of lines (default: 50)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="for logs: keep printing new lines")
    json_option(parser)
    timeout_option(parser, "2m")


def daemon(call: CommandContext) -> int:
    match call.options.action:
        case "start":
            return _start(call)
        case "stop":
            return _stop(call)
        case "restart":
            return _restart(call)
        case "status":
            return _status(call)
        case _:
            return logs.logs(call)


def _start(call: CommandContext) -> int:
    if server := find(call):
        pid = server.record.pid if server.record else "?"
        call.terminal.line(f"the server is already running (pid {pid})")
        return DONE
    _print_addresses(call, start_server(call, implicit_settings(call)))
    return DONE


def _print_addresses(call: CommandContext, server: FoundServer) -> None:
    record, records = server.record, server.records
    if record and records:
        listens = server.client.get("/api/v1/status").get("listen") or ("nothing",)
        call.terminal.line(f"pid {record.pid}, listens on {', '.join(listens)}")
        call.terminal.line(f"log {records.log_path}")


def _stop(call: CommandContext) -> int:
    server = find(call)
    if server is None:
        call.terminal.line("no server is running; nothing to stop")
        return DONE
    background.stop(server, within=call.options.timeout, force=call.options.force)
    call.terminal.line("the server is stopped")
    return DONE


def _restart(call: CommandContext) -> int:
    """Stop the server and start one with the same manifest and addresses; the overlay is kept."""
    server = find(call)
    settings = implicit_settings(call)
    if server is not None:
        if server.record is None:
            raise UsageError("restart works on this machine only, and the server is remote")
        if server.record.manifest is not None:
            call.options.file = server.record.manifest
        elif not settings:
            settings = _settings_of(call, server)
        background.stop(server, within=call.options.timeout, force=call.options.force)
    _print_addresses(call, start_server(call, settings))
    return DONE


def _settings_of(call: CommandContext, server: FoundServer) -> dict[str, object]:
    """Return the implicit settings of a running server: its address and its models without those of the overlay."""
    manifest = server.client.get("/api/v1/stack")["manifest"]
    host, _, port = manifest["server"]["listen"][0].rpartition(":")
    added = server.records.overlay() if server.records else {}
    elsewhere = overlay_of(call, {})
    default = manifest["routes"].get("default")
    models = [
        name if elsewhere.get(name, {}).get("from") == tree["from"] else f"{name}={tree['from']}"
        for name, tree in manifest["models"].items()
        if name not in added
    ]
    if default in added and models:
        models.append(default)
    search = manifest.get("search") or {}
    ranking = search.get("embed")
    if ranking in manifest["models"]:
        models = [spec for spec in models if spec.partition("=")[0] != ranking]
    models.sort(key=lambda spec: spec.partition("=")[0] != default)  # the first of --model is the default model
    return {
        "http_addr": host,
        "http_port": int(port),
        **({"model": models} if models and default else {}),
        **({"enable_search": search.get("url") or BRAVE} if search else {}),
        **({"search_embedding_model": f"{ranking}={manifest['models'][ranking]['from']}"} if ranking else {}),
    }


def _status(call: CommandContext) -> int:
    server = find(call)
    tree = server.client.get("/api/system/status") if server else {}
    log = str(server.records.log_path) if server and server.records else None
    state: dict[str, Any] = {
        "running": server is not None,
        "version": tree.get("version", mullama.__version__),
        "pid": server.record.pid if server and server.record else None,
        "uptime_secs": tree.get("uptime_secs"),
        "models_loaded": tree.get("models_loaded"),
        "socket": f"unix:{server.record.control}" if server and server.record else None,
        "http_endpoint": tree.get("http_endpoint"),
        "logs": log,
    }
    if call.options.json:
        call.terminal.json(state)
    else:
        for name, value in state.items():
            if value is not None:
                shown = ("yes" if value else "no") if isinstance(value, bool) else value
                call.terminal.line(f"{name:<15}{shown}")
    return DONE if server else NO_CONNECTION


def ping_options(parser: Parser) -> None:
    instance_options(parser)
    json_option(parser)


def ping(call: CommandContext) -> int:
    """Print the server's version, its uptime and the response time."""
    server = require(call)
    begun = time.perf_counter()
    server.client.get("/livez")
    took = time.perf_counter() - begun
    tree = server.client.get("/api/system/status")
    if call.options.json:
        uptime = tree["uptime_secs"]
        call.terminal.json({"version": tree["version"], "uptime_secs": uptime, "milliseconds": round(took * 1000, 3)})
    else:
        call.terminal.line(f"mullama {tree['version']}, up {tree['uptime_secs']} s, answered in {took * 1000:.1f} ms")
    return DONE
