"""Finds the server that a command changes, or starts one in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import quote

from mullama.cli.api_client import discover
from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, server_options
from mullama.cli.server.background import ended, start
from mullama.cli.server.serve import implicit_arguments, implicit_manifest
from mullama.errors import TimedOut, Unavailable

_APPLY_SECONDS = 600.0


def instance_options(parser: Parser, *, other_f: bool = False) -> None:
    """Add the options that select the manifest and the server. other_f: -f of the command has another meaning."""
    names = ("--manifest",) if other_f else ("-f", "--file", "--manifest")
    parser.add_argument(*names, dest="file", metavar="FILE", help="manifest (default: mullama.yaml in this folder)")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="a profile of the manifest")
    server_options(parser)


def ensure_server(call: CommandContext) -> FoundServer:
    """Return the running server; if none is running, start one, with or without a manifest.

    Raises `UsageError` for the manifest of a fleet.
    """
    if discover.is_remote(call):
        return discover.require(call)
    discover.refuse_fleet(call)
    server = discover.find(call)
    return server if server is not None else start_server(call)


def start_server(call: CommandContext, settings: Mapping[str, object] | None = None) -> FoundServer:
    """Start a server in the background and return it once it has applied its manifest.

    settings: implicit settings (see `serve`) for a call without a manifest.
    """
    if discover.has_manifest(call):
        found = discover.start_manifest(call)
        if found.problem is not None:
            call.terminal.note(f"warning: the last applied revision is served, because: {found.problem}")
        profiles = [part for name in call.options.profile for part in ("--profile", name)]
        server = start(found.records, ["-f", str(discover.manifest_path(call)), *profiles])
    else:
        loaded = implicit_manifest(call, settings or {})
        server = start(discover.records_of(call, loaded), implicit_arguments(settings or {}))
    call.terminal.note(f"server started (pid {server.record.pid if server.record else '?'})")
    _wait_until_applied(server)
    return server


def _wait_until_applied(server: FoundServer) -> None:
    """Wait until the server has applied its first manifest; raise `Unavailable` when it ended instead."""
    deadline = time.monotonic() + _APPLY_SECONDS
    while time.monotonic() < deadline:
        try:
            state = server.client.get("/api/v1/status").get("state")
        except Unavailable as error:
            raise ended(server) from error
        if state not in ("starting", "reconciling"):
            return
        time.sleep(0.03)
    raise TimedOut(f"the server is still not ready after {_APPLY_SECONDS:g} s", hint="mullama status shows why")


def model_path(name: str, *rest: str) -> str:
    """Return the URL path of a model, with its name quoted."""
    return "/".join(("/api/models", quote(name, safe=":"), *rest))
