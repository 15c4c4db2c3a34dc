"""The state of each host of a fleet, asked through its operator API: version, machine, and applied manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mullama.errors import Invalid, MullamaError, Refused
from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import Device, Machine
from mullama.struct import Struct, field
from mullama.targets.fleet.hosts import FleetHostPort, on_each

_MINOR_APART = 1
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")


class HostObservation(Struct, frozen=True, kw_only=True):
    """A host that answers."""

    name: str
    version: str
    revision: str
    """The digest of the applied manifest, for If-Match."""
    applied: Manifest
    machine: Machine
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of the weights of each served model, as far as it is known."""


class FleetObservation(Struct, frozen=True, kw_only=True):
    """All hosts of a fleet, by name."""

    hosts: Mapping[str, HostObservation] = field(default_factory=dict)
    faults: Mapping[str, MullamaError] = field(default_factory=dict)
    """The hosts that cannot be observed, or have a version that this one does not work with."""


def observe_fleet(hosts: Iterable[FleetHostPort], version: str) -> FleetObservation:
    """Ask all hosts at the same time. version: that of this program."""
    return gathered(on_each(hosts, lambda host: observe_host(host, version)))


def gathered(answers: Mapping[str, HostObservation | MullamaError]) -> FleetObservation:
    """Return the answers of the hosts as one value."""
    return FleetObservation(
        hosts={name: seen for name, seen in answers.items() if isinstance(seen, HostObservation)},
        faults={name: seen for name, seen in answers.items() if isinstance(seen, MullamaError)},
    )


def observe_host(host: FleetHostPort, version: str) -> HostObservation:
    """Ask one host. Raises its error, and `Refused` for a version that is too far from `version`."""
    status = host.get("/api/v1/status")
    require_near(host.name, str(status.get("version", "")), version)
    stack = host.get("/api/v1/stack")
    try:
        applied = parse_resolved(stack["manifest"])
    except MullamaError as error:
        raise Refused(
            f"{host.name}: runs mullama {status['version']}, whose manifest mullama {version} cannot read: {error}",
            hint="upgrade this mullama",
        ) from error
    return HostObservation(
        name=host.name,
        version=str(status["version"]),
        revision=str(stack["revision"]),
        applied=applied,
        machine=machine_of(host.name, status.get("machine") or {}),
        digests={str(row["name"]): str(row["digest"]) for row in status.get("models", ()) if row.get("digest")},
    )


def require_near(host: str, theirs: str, ours: str) -> None:
    """Raise `Refused` unless the two versions are at most one minor version apart."""
    one, other = _VERSION.match(theirs), _VERSION.match(ours)
    if one is not None and other is not None:
        (major, minor), (our_major, our_minor) = map(int, one.groups()), map(int, other.groups())
        if major == our_major and abs(minor - our_minor) <= _MINOR_APART:
            return
    shown = theirs[:40] or "of an unknown version"
    raise Refused(
        f"{host}: runs mullama {shown}, and this is {ours}: one minor version apart works, more does not",
        hint=f"upgrade mullama on {host}, or here, step by step",
    )


def machine_of(host: str, tree: Mapping[str, Any]) -> Machine:
    """Return the machine of a status. Raises `Invalid` for another form."""
    try:
        devices = tuple(
            Device(
                name=str(gpu["name"]), description=str(gpu["description"]), total=int(gpu["total"]),
                free=int(gpu["free"]), host=str(gpu.get("host") or ""), fault=str(gpu.get("fault") or ""),
                ids=tuple(gpu.get("ids") or ()),
            )
            for gpu in tree.get("gpus", ())
        )  # fmt: skip
        return Machine(
            ram_total=int(tree.get("ram_total", 0)), ram_available=int(tree.get("ram_available", 0)),
            gpus=devices, cores=int(tree.get("cores") or 1),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{host}: the machine of its status has an unknown form: {error}") from error
