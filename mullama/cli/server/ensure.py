"""The server that a verb changes something in: the one that runs, else one that is started in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from mullama.cli.api_client.discover import (
    FoundServer,
    find,
    has_manifest,
    is_remote,
    load_manifest,
    manifest_path,
    records_of,
    require,
)
from mullama.cli.app.context import CommandContext, Parser, server_options
from mullama.cli.server.background import start
from mullama.errors import TimedOut, Unavailable

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

_SETTLE_SECONDS = 600.0


def place_options(parser: Parser) -> None:
    """Which server and manifest are meant, for commands whose -f means something else."""
    parser.add_argument("--manifest", dest="file", metavar="FILE", help="the manifest (default: mullama.yaml here)")
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="work in a profile of the manifest"
    )
    server_options(parser)


def ensure_server(call: CommandContext) -> FoundServer:
    """The running server, its start-up over; starts one for the manifest at hand, or for none."""
    if is_remote(call):
        return require(call)
    server = find(call, lambda: load_manifest(call))
    return server if server is not None else begin(call)


def begin(call: CommandContext, said: Mapping[str, object] | None = None) -> FoundServer:
    """Start a server for the manifest at hand; `said` is an implicit one for where no file is (see `serve`)."""
    if has_manifest(call):
        loaded = load_manifest(call)
        profiles = [part for name in call.options.profile for part in ("--profile", name)]
        server = start(records_of(call, loaded), ["-f", str(manifest_path(call)), *profiles])
    else:
        loaded, arguments = without_file(call, said or {})
        server = start(records_of(call, loaded), arguments)
    call.terminal.note(f"server started (pid {server.record.pid if server.record else '?'})")
    settled(server)
    return server


def without_file(call: CommandContext, said: Mapping[str, object]) -> tuple[LoadedManifest, Sequence[str]]:
    """The implicit manifest, and what tells `serve` the same."""
    from mullama.cli.server.serve import implicit_arguments, implicit_manifest

    return implicit_manifest(call, said), implicit_arguments(said)


def settled(server: FoundServer) -> None:
    """Wait until the server has applied what it was started with; `Unavailable` when it ended instead."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        try:
            state = server.client.get("/api/v1/status").get("state")
        except Unavailable as error:
            raise _ended(server) from error
        if state not in ("starting", "reconciling"):
            return
        time.sleep(0.03)
    raise TimedOut(f"the server is still not ready after {_SETTLE_SECONDS:g} s", hint="mullama status shows why")


def _ended(server: FoundServer) -> Unavailable:
    """What the server wrote last before it ended."""
    if server.records is None:
        return Unavailable("the server that was started ended")
    path = server.records.log_path
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if " info request " not in line][-5:]
    return Unavailable("\n".join(["the server that was started ended", *lines]), hint=f"its log is {path}")


def model_path(name: str, *rest: str) -> str:
    """The address of a model, whatever its name holds."""
    return "/".join(("/api/models", quote(name, safe=":"), *rest))
