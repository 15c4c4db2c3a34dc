"""The memory that the models of a fleet need on its hosts (pure), by the arithmetic of one machine.

An estimate is for a host without other models: the devices of the host are free as far as the budget allows. The sum
is over all devices, as for one machine, so a single device may still lack room.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from mullama.errors import Invalid
from mullama.manifest.checks.fleet import lenders_of, matching_hosts, present_hosts
from mullama.manifest.spec import Budget, Hardware, Manifest, Model
from mullama.plan.devices import within_budget
from mullama.plan.fit import device_parts, memory_bound, placement, stays
from mullama.plan.observed import KnownFiles, Machine
from mullama.plan.place import HostRoom, MemoryDemand, PlacedModel
from mullama.struct import replace
from mullama.targets.fleet.lenders import Lent, demand_over_hosts
from mullama.targets.fleet.observe import FleetObservation, HostObservation


def rooms(fleet: Manifest, seen: FleetObservation) -> tuple[HostRoom, ...]:
    """Return the hosts that answer, with the memory that their budgets leave to models."""
    found = []
    for host in seen.hosts.values():
        budget = budget_of(fleet, host)
        found.append(
            HostRoom(name=host.name, memory=memory_bound(budget, host.machine), kind=_kind(host.machine, budget))
        )
    return tuple(found)


def budget_of(fleet: Manifest, host: HostObservation) -> Budget:
    """Return the budget of a host: that of the fleet, or its own where the fleet has no hardware block."""
    return (fleet.hardware if fleet.hardware != Hardware() else host.applied.hardware).budget


class FleetMemory(NamedTuple):
    """The memory that models need."""

    models: tuple[PlacedModel, ...]
    lent: dict[str, dict[str, int]]
    """Of models over several hosts: the bytes on each lender, of all replicas."""


def placed_models(
    fleet: Manifest, seen: FleetObservation, files: Mapping[str, KnownFiles], lent: Lent
) -> FleetMemory:  # fmt: skip
    """Return the models with the memory that they need on each kind of host. files: by source, as far as known.

    A model whose hosts are away has no hosts and no replicas. lent: the devices that hosts lend to models.
    """
    present = frozenset(present_hosts(fleet.fleet))
    kinds: dict[str, Machine] = {}
    of_host: dict[str, str] = {}
    for host in seen.hosts.values():
        budget = budget_of(fleet, host)
        kind = of_host[host.name] = _kind(host.machine, budget)
        kinds.setdefault(kind, _empty(host.machine, budget))
    found = []
    choices: dict[str, tuple[str, ...]] = {}
    taken: dict[str, dict[str, int]] = {}
    for name, model in fleet.models.items():
        lenders = lenders_of(model, fleet.fleet)
        choice = json.dumps([model.hosts, lenders], sort_keys=True)
        if (hosts := choices.get(choice)) is None:
            hosts = choices[choice] = tuple(h for h in matching_hosts(model, fleet.fleet) if h in present)
        wanted = dict.fromkeys(of_host[host] for host in hosts if host in of_host)
        replicas = min(model.replicas, len(hosts))
        if lenders:
            both = {kind: demand_over_hosts(model, fleet.fleet, files, kinds[kind], lent) for kind in wanted}
            need = {kind: here for kind, (here, _) in both.items()}
            most = {lender: max((there.get(lender, 0) for _, there in both.values()), default=0) for lender in lenders}
            taken[name] = {lender: count * replicas for lender, count in most.items()}
        else:
            need = {kind: _demand(model, files, kinds[kind]) for kind in wanted}
        found.append(PlacedModel(name=name, hosts=hosts, replicas=replicas, stays=stays(model), need=need))
    return FleetMemory(tuple(found), taken)


def _demand(model: Model, files: Mapping[str, KnownFiles], machine: Machine) -> MemoryDemand:
    known = files.get(model.from_)
    if known is None or known.facts is None:
        # The header is not known: the size of the files is the least that the weights need.
        bytes_known = known.size if known is not None else None
        return MemoryDemand(((model.from_, bytes_known),) if bytes_known else ())
    try:
        placement(model, known.facts, machine)
    except Invalid as error:
        return MemoryDemand((), error.message)
    parts = device_parts(model, files, machine)
    return MemoryDemand(tuple((_short(key), sum(places.values())) for key, places in parts.items()))


def _short(key: object) -> str:
    return blake2b(repr(key).encode(), digest_size=16).hexdigest()


def _kind(machine: Machine, budget: Budget) -> str:
    """Return a text that is equal for hosts on which a model needs the same memory."""
    devices = [(d.name, d.total, d.host, bool(d.fault), d.ids) for d in machine.gpus]
    return _short((machine.ram_total, devices, repr(budget)))


def _empty(machine: Machine, budget: Budget) -> Machine:
    free = replace(machine, gpus=tuple(replace(device, free=device.total) for device in machine.gpus))
    return within_budget(free, budget)
