"""Finds out whether a command is for a fleet, and makes the clients of its hosts."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.api_client.discover import is_remote, load_manifest, manifest_text, user
from mullama.cli.app.context import CommandContext, UsageError
from mullama.errors import ManifestError, MullamaError
from mullama.struct import replace

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
    faults: dict[str, MullamaError]
    """The hosts whose key cannot be read here; `hosts` lacks them."""
    away: tuple[str, ...] = ()
    """The hosts that the command leaves out."""

    @property
    def holder(self) -> str:
        """The name of this run of a command, for the lease."""
        return f"{user()}@{socket.gethostname()}:{os.getpid()}"


def find_fleet(call: CommandContext) -> FleetCall | None:
    """Return the fleet of the command; None without one, and where --host names one server.

    Raises `NotFound` or `Denied` for the key of a host that cannot be read here.
    """
    loaded = _loaded(call)
    if loaded is None or not loaded.manifest.fleet.hosts:
        return None
    fleet = fleet_of(call, loaded)
    for error in fleet.faults.values():
        raise error
    return fleet


def fleet_of(call: CommandContext, loaded: LoadedManifest, away: Iterable[str] = ()) -> FleetCall:
    """Return the fleet of a manifest, with a client of each host that is not away by the manifest, --skip or `away`."""
    from mullama.targets.fleet.away import away_hosts, skipping
    from mullama.targets.fleet.hosts import remote_host

    try:
        manifest = skipping(loaded.manifest, (*getattr(call.options, "skip", ()), *away))
    except MullamaError as error:
        raise UsageError(f"--skip: {error.message}", hint=error.hint) from error
    loaded, absent = replace(loaded, manifest=manifest), away_hosts(manifest)
    hosts: dict[str, RemoteHost] = {}
    faults: dict[str, MullamaError] = {}
    for name, host in manifest.fleet.hosts.items():
        if name in absent:
            continue
        try:
            hosts[name] = remote_host(name, host, call.env)
        except MullamaError as error:
            faults[name] = error
    name = manifest.metadata.name or "fleet"
    return FleetCall(name=name, loaded=loaded, hosts=hosts, faults=faults, away=absent)


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
