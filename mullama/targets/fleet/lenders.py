"""Models over the devices of several hosts (pure): the host that serves one, and the hosts that lend it devices.

`gpu.devices` of such a model names hosts with `fleet.hosts.NAME.rpc`. The host that serves it gets their addresses in
`hardware.rpc` and in the devices of the model, and their memory counts on the hosts that lend it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from mullama.errors import Invalid
from mullama.manifest.checks.fleet import lenders_of
from mullama.manifest.spec import Fleet, Hardware, Manifest, Model
from mullama.plan.fit import device_parts, placement
from mullama.plan.observed import Device, KnownFiles, Machine
from mullama.plan.place import HostRoom, MemoryDemand, Unplaced
from mullama.struct import replace
from mullama.targets.fleet.observe import FleetObservation
from mullama.units import size

Lent = Mapping[str, tuple[Device, ...]]
"""The devices that each host of a fleet lends, by its name, with their memory as free."""


def lent_devices(fleet: Manifest, seen: FleetObservation) -> dict[str, tuple[Device, ...]]:
    """Return the devices of the hosts that lend some and answer.

    A host that uses them already knows their memory; before that, all memory of the lender counts.
    """
    found: dict[str, tuple[Device, ...]] = {}
    for name, host in fleet.fleet.hosts.items():
        if host.rpc is None or name not in seen.hosts:
            continue
        used = (_of(host.rpc, other.machine.gpus) for other in seen.hosts.values())
        devices = next(filter(None, used), None) or _own(seen.hosts[name].machine)
        found[name] = tuple(
            replace(device, name=f"{name}/{number}", host=host.rpc, number=number, free=device.total, fault="")
            for number, device in enumerate(devices)
        )
    return found


def _of(address: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    return tuple(device for device in devices if device.host == address and not device.fault and device.total)


def _own(machine: Machine) -> tuple[Device, ...]:
    """Return the devices of a machine, its main memory where it has none: so `mullama rpc` lends them."""
    own = tuple(device for device in machine.gpus if not device.host)
    return own or (Device(name="CPU", total=machine.ram_total),)


def own_machines(fleet: Fleet, seen: FleetObservation) -> FleetObservation:
    """Return the hosts without the devices that other hosts of the fleet lend them: these count where they are."""
    addresses = {host.rpc for host in fleet.hosts.values() if host.rpc is not None}
    if not addresses:
        return seen
    hosts = {}
    for name, host in seen.hosts.items():
        gpus = tuple(device for device in host.machine.gpus if device.host not in addresses)
        hosts[name] = replace(host, machine=replace(host.machine, gpus=gpus))
    return replace(seen, hosts=hosts)


def demand_over_hosts(
    model: Model, fleet: Fleet, files: Mapping[str, KnownFiles], machine: Machine, lent: Lent
) -> tuple[MemoryDemand, dict[str, int]]:
    """Return the memory of a model on the host that serves it, and the bytes on each lender.

    machine: that host without other models. Nothing is known of a model whose lender does not answer, or whose header
    is not known.
    """
    lenders, known = lenders_of(model, fleet), files.get(model.from_)
    if known is None or known.facts is None or any(name not in lent for name in lenders):
        return MemoryDemand(), {}
    devices = tuple(device for name in lenders for device in lent[name])
    together, there = replace(machine, gpus=(*machine.gpus, *devices)), with_addresses(model, fleet)
    try:
        placement(there, known.facts, together)
    except Invalid as error:
        return MemoryDemand((), error.message), {}
    owners = {device.name: name for name in lenders for device in lent[name]}
    parts, there_bytes = [], dict.fromkeys(lenders, 0)
    for key, places in device_parts(there, files, together).items():
        parts.append((repr(key), sum(count for device, count in places.items() if device not in owners)))
        for device, count in places.items():
            if device in owners:
                there_bytes[owners[device]] += count
    return MemoryDemand(tuple(parts)), there_bytes


def less_lent(rooms: Iterable[HostRoom], taken: Mapping[str, Mapping[str, int]]) -> tuple[HostRoom, ...]:
    """Return the rooms of hosts without what they lend. taken: the bytes on each lender, by the model."""
    return tuple(
        room if room.memory is None else replace(room, memory=max(0, room.memory - _sum(taken, room.name)))
        for room in rooms
    )


def overlent(rooms: Iterable[HostRoom], taken: Mapping[str, Mapping[str, int]]) -> Iterator[Unplaced]:
    """Yield the models whose lenders have less memory than they all need. rooms: with what the hosts lend."""
    for room in rooms:
        if room.memory is not None and _sum(taken, room.name) > room.memory:
            for model, lenders in taken.items():
                if count := lenders.get(room.name, 0):
                    text = f"{model} needs {size(count, digits=1)} of the devices of {room.name}, which lends "
                    text += f"{size(_sum(taken, room.name), digits=1)} of its {size(room.memory, digits=1)}"
                    yield Unplaced(model=model, reason=text)


def _sum(taken: Mapping[str, Mapping[str, int]], lender: str) -> int:
    return sum(lenders.get(lender, 0) for lenders in taken.values())


def with_addresses(model: Model, fleet: Fleet) -> Model:
    """Return a model with the addresses of lenders in place of their names."""
    if not lenders_of(model, fleet):
        return model
    devices = tuple(_address(entry, fleet) for entry in model.gpu.devices)
    return model.model_copy(update={"gpu": model.gpu.model_copy(update={"devices": devices})})


def _address(entry: str, fleet: Fleet) -> str:
    name, slash, number = entry.partition("/")
    host = fleet.hosts.get(name)
    return entry if host is None or host.rpc is None else f"{host.rpc}{slash}{number}"


def with_own_devices(model: Model, devices: Sequence[str]) -> Model:
    """Return a model that uses no device of other hosts, unless it names one. devices: those of its host."""
    if model.gpu.devices or model.gpu.layers == 0:
        return model
    change = {"devices": tuple(devices)} if devices else {"layers": 0}
    return model.model_copy(update={"gpu": model.gpu.model_copy(update=change)})


def hardware_of(base: Hardware, fleet: Fleet, models: Collection[Model], lenders: Collection[str]) -> Hardware:
    """Return the hardware of a host with the addresses of the lenders of these models, and of no other host.

    lenders: the addresses that applied models name, which leave with the last of them.
    """
    old = {*lenders, *(host.rpc for host in fleet.hosts.values())} - named_addresses(models)
    used = dict.fromkeys(fleet.hosts[name].rpc for model in models for name in lenders_of(model, fleet))
    kept = (rpc for rpc in base.rpc if rpc not in old and rpc not in used)
    return base.model_copy(update={"rpc": (*kept, *used)})


def named_addresses(models: Iterable[Model]) -> frozenset[str]:
    """Return the addresses of other hosts that models name in `gpu.devices`."""
    entries = (entry.partition("/")[0] for model in models for entry in model.gpu.devices)
    return frozenset(entry for entry in entries if ":" in entry)


def with_old_lenders(applied: Hardware, wanted: Hardware, models: Iterable[Model]) -> Hardware:
    """Return the wanted hardware with the lenders of models that leave the host later."""
    used = named_addresses(models)
    kept = tuple(rpc for rpc in applied.rpc if rpc in used and rpc not in wanted.rpc)
    return wanted.model_copy(update={"rpc": (*wanted.rpc, *kept)}) if kept else wanted
