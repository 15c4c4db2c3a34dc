"""`mullama ui`: prints the address of the web page, and opens it in a browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer, is_remote, require
from mullama.cli.app.context import CommandContext, Parser
from mullama.cli.app.exit_codes import DONE
from mullama.cli.server.ensure import ensure_server, instance_options
from mullama.client.address import ServerAddress
from mullama.errors import Refused, Unavailable, Unsupported

_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address of this machine for an address that means all of them."""


def ui_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


def ui(call: CommandContext) -> int:
    """Print the address of the page of the running server; start a server if none is running.

    The address has no key: the page asks for one where keys are declared.
    """
    server = require(call) if is_remote(call) else ensure_server(call)
    status = server.client.get("/api/v1/status")
    if not server.client.get("/api/v1/stack")["manifest"]["server"].get("ui", True):
        raise Refused("the manifest switches the web page off", hint="server: {ui: true} in the manifest serves it")
    address = _address(server, status)
    call.terminal.line(f"{address}/ui/")
    if call.options.open and not webbrowser.open(f"{address}/ui/"):
        raise Unavailable("no browser could be opened", hint="open the address by hand")
    return DONE


def _address(server: FoundServer, status: Mapping[str, Any]) -> str:
    """Return the address of a TCP listener for a browser of this machine; raise `Unsupported` without one."""
    own = server.client.address
    if own.path is None:
        return str(own)
    tcp = [text for text in status.get("listen") or () if not text.startswith("unix:")]
    if not tcp:
        raise Unsupported(
            "the server listens on no TCP address, and a browser needs one",
            hint='server: {listen: ["127.0.0.1:11434"]} in the manifest',
        )
    found = ServerAddress.parse(f"{'https' if status.get('tls') else 'http'}://{tcp[0]}")
    return str(found._replace(host=_EVERY.get(found.host, found.host)))
