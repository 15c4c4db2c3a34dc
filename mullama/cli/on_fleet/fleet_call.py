"""Finds out whether a command is for a fleet, and makes the clients of its hosts."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.api_client.discover import is_remote, load_manifest, manifest_text, user
from mullama.cli.app.context import CommandContext
from mullama.errors import ManifestError

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

    loaded: the manifest, if it is loaded already. Raises `NotFound` for the key of a host that is missing here.
    """
    found = loaded if loaded is not None else _loaded(call)
    if found is None or is_remote(call):
        return None
    fleet = found.manifest.fleet
    if not fleet.hosts:
        return None
    from mullama.targets.fleet.hosts import remote_host

    hosts = {name: remote_host(name, host, call.env) for name, host in fleet.hosts.items()}
    return FleetCall(name=found.manifest.metadata.name or "fleet", loaded=found, hosts=hosts)


def _loaded(call: CommandContext) -> LoadedManifest | None:
    """Return the manifest of the command if it may have a fleet.

    Problems of a manifest without the word `fleet` are not raised: `status` and `logs` of a server are read beside a
    broken manifest.
    """
    text = None if is_remote(call) else manifest_text(call)
    if text is None or _HINTS.search(text) is None:
        return None
    try:
        return load_manifest(call)
    except ManifestError:
        if b"fleet" in text:
            raise
        return None
