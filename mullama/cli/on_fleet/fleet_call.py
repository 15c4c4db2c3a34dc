"""Finds out whether a command is for a fleet, and makes the clients of its hosts."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.api_client.discover import is_remote, load_manifest, manifest_text, user
from mullama.cli.app.context import CommandContext

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.targets.fleet.hosts import RemoteHost

# A manifest without these words has no fleet, and need not be loaded. Text with an escape may spell them otherwise.
_HINTS = re.compile(rb"(?:fleet|include|profiles)[\"']?\s*:|\\")


class FleetCall(NamedTuple):
    """The fleet of a command."""

    name: str
    """`metadata.name` of the manifest, else `fleet`."""
    loaded: LoadedManifest
    hosts: dict[str, RemoteHost]

    @property
    def holder(self) -> str:
        """The name of this run of a command, for the lease."""
        return f"{user()}@{socket.gethostname()}:{os.getpid()}"


def find_fleet(call: CommandContext, loaded: LoadedManifest | None = None) -> FleetCall | None:
    """Return the fleet of the command; None without one, and where --host names one server.

    loaded: the manifest, if it is loaded already. Raises the problems of a manifest that may have a fleet, and
    `NotFound` for the key of a host that is missing here.
    """
    if is_remote(call) or (loaded is None and not _may_have_fleet(call)):
        return None
    found = loaded if loaded is not None else load_manifest(call)
    fleet = found.manifest.fleet
    if not fleet.hosts:
        return None
    from mullama.targets.fleet.hosts import remote_host

    hosts = {name: remote_host(name, host, call.env) for name, host in fleet.hosts.items()}
    return FleetCall(name=found.manifest.metadata.name or "fleet", loaded=found, hosts=hosts)


def _may_have_fleet(call: CommandContext) -> bool:
    text = manifest_text(call)
    return text is not None and _HINTS.search(text) is not None
