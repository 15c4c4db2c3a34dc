"""The devices that a model may use, and the memory that the budget leaves on each."""

from __future__ import annotations

from mullama.errors import Invalid
from mullama.manifest.spec import Budget, Gpu, share_of
from mullama.plan.observed import Device, Machine
from mullama.struct import replace

_NAMED = 8  # devices in one message


class DeviceMissing(Invalid):
    """The machine lacks a device that a model names. Another machine may have it, so the manifest is not wrong."""


def find_devices(name: str, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Return the device with this name, PCI address, UUID or address, or all devices of this host."""
    wanted = name.casefold()
    exact = tuple(d for d in devices if wanted in _names(d))
    return exact or tuple(d for d in devices if d.host.casefold() == wanted)


def _names(device: Device) -> set[str]:
    """Return the names of a device in lower case. A PCI address may lack its domain, if that is 0000."""
    ids = {id.casefold() for id in device.ids}
    short = {id.removeprefix("0000:") for id in ids if id.startswith("0000:")}
    return {device.name.casefold(), device.address.casefold(), *ids, *short}


def usable_devices(gpu: Gpu, machine: Machine | None) -> tuple[Device, ...]:
    """Return the devices of a model in llama.cpp's order. Raise `DeviceMissing` for one that is not there.

    The order is that of `gpu.devices`. Without that field, it is the machine's if `gpu` has numbers of devices, and
    else begins with other hosts, as in llama.cpp: the output is then on a device of this machine, and no logits cross
    the network. A host that does not answer is used only by models that name it.
    """
    known = machine.gpus if machine else ()
    if gpu.devices:
        if machine is None:
            return ()
        found = (d for name in gpu.devices for d in find_devices(name, known) or _missing(name, known))
        return tuple(dict.fromkeys(found))
    answering = tuple(d for d in known if not d.fault)
    if isinstance(gpu.layers, dict) or gpu.tensor_split or gpu.main:
        return answering
    return tuple(d for d in answering if d.host) + tuple(d for d in answering if not d.host)


def _missing(name: str, known: tuple[Device, ...]) -> tuple[Device, ...]:
    raise DeviceMissing(f"gpu.devices: there is no device {name!r}", hint=known_devices(known))


def known_devices(known: tuple[Device, ...]) -> str:
    """Return a sentence with the names of the devices."""
    if not known:
        return "this machine has no devices: its llama.cpp is built for the CPU, and hardware.rpc lists no host"
    names = ", ".join(f"{d.name} ({d.host or d.description})" for d in known[:_NAMED])
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"there are {names}{more}"


def within_budget(machine: Machine, budget: Budget) -> Machine:
    """Return the machine with as much free memory on each device as the budget allows. Shares are of the total."""
    gpus = tuple(
        replace(device, free=min(device.free, device_bound(device, number, budget)))
        for number, device in enumerate(machine.gpus)
    )
    return replace(machine, gpus=gpus)


def device_bound(device: Device, number: int, budget: Budget) -> int:
    """Return the bytes that all models may use on a device: its budget, by number or name, else all of its memory."""
    for key, share in budget.gpu.items():
        if key == str(number) or key.casefold() in {*_names(device), device.host.casefold()}:
            bound = share_of(share, device.total)
            return device.total if bound is None else bound
    return device.total
