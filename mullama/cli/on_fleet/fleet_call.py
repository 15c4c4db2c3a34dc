"""Finds out whether a command is for a fleet, and makes the clients of its hosts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from mullama.cli.api_client.discover import fleet_manifest, user
from mullama.cli.app.context import CommandContext, UsageError
from mullama.errors import MullamaError

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.targets.fleet.hosts import RemoteHost


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
    loaded = fleet_manifest(call)
    if loaded is None:
        return None
    fleet = fleet_of(call, loaded)
    for error in fleet.faults.values():
        raise error
    return fleet


def fleet_of(call: CommandContext, loaded: LoadedManifest, away: Iterable[str] = ()) -> FleetCall:
    """Return the fleet of a manifest, with a client of each host that is not away by the manifest, --skip or `away`."""
    from mullama.struct import replace
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
