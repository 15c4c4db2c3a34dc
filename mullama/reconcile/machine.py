"""The resources of this machine, as this process may use them, and the devices that other hosts lend it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mullama.errors import MullamaError
from mullama.machine import usable_cores, usable_memory
from mullama.manifest.spec import Hardware
from mullama.plan.devices import within_budget
from mullama.plan.observed import Device, Machine
from mullama.struct import replace

_NO_GPU: Final = ("base", "cpu", "rpc", "blas")  # backends of llama.cpp that compute on the CPU or elsewhere
_START_SECONDS = 60.0  # a driver may need long for its first start

_NO_HARDWARE = Hardware()
_last_seen: dict[str, tuple[Device, ...]] = {}


def observe_machine(hardware: Hardware = _NO_HARDWARE) -> Machine:
    """Read the resources now; 0 is unknown. hardware: the hosts to ask, and the budget that bounds the free memory."""
    memory = usable_memory()
    gpus = (*local_devices(os.environ), *host_devices(hardware.rpc))
    machine = Machine(ram_total=memory.total, ram_available=memory.available, gpus=gpus, cores=usable_cores())
    return within_budget(machine, hardware.budget)


def local_devices(env: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the devices of this machine as llama.cpp sees them. A build without a GPU backend has none."""
    if not gpu_backends():
        return ()
    import subprocess

    command = [sys.executable, "-I", "-m", "mullama.engines.llamacpp.binding.devices"]
    try:
        done = subprocess.run(command, env=dict(env), capture_output=True, timeout=_START_SECONDS, check=True)
        rows: list[dict[str, Any]] = json.loads(done.stdout)["devices"]
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    return tuple(
        Device(
            name=row["name"],
            description=row["description"],
            total=row["total"],
            free=row["free"],
            ids=tuple(filter(None, (row["id"], _uuids().get(row["id"], "")))),
        )
        for row in rows
    )


@cache
def gpu_backends() -> tuple[str, ...]:
    """Return the GPU backends of the installed llama.cpp by the names of its libraries: cuda, vulkan, metal, …"""
    package = find_spec("llama_cpp")
    folder = Path(package.origin).parent / "lib" if package is not None and package.origin else None
    if folder is None or not folder.is_dir():
        return ()
    names = {path.name.partition("ggml-")[2].partition(".")[0] for path in folder.iterdir() if "ggml-" in path.name}
    return tuple(sorted(name for name in names if not name.startswith(_NO_GPU)))


@cache
def _uuids() -> dict[str, str]:
    """Return the UUID of each device that NVIDIA's driver lists, by its PCI address as llama.cpp writes it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    import subprocess

    query = [tool, "--query-gpu=pci.bus_id,uuid", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.split(",") for line in output.splitlines() if line.count(",") == 1)
    # The driver writes a domain of eight digits, llama.cpp one of four.
    return {address.strip().lower()[-12:]: uuid.strip() for address, uuid in pairs}


def host_devices(hosts: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices of all hosts, named RPC0, RPC1 … in order. The hosts are asked at the same time.

    A host that does not answer has as many devices as when it answered last, else one.
    """
    if not hosts:
        return ()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(hosts)) as threads:
        found = [device for devices in threads.map(_ask_host, hosts) for device in devices]
    return tuple(replace(device, name=f"RPC{number}") for number, device in enumerate(found))


def _ask_host(host: str) -> tuple[Device, ...]:
    from mullama.engines.llamacpp.rpc.ask import HostBusy

    try:
        _last_seen[host] = tuple(_lent(host))
    except HostBusy as error:
        # llama.cpp's own server answers no second client: it works, perhaps for a model of this very server.
        return _last_seen.get(host) or (_absent(host, error),)
    except MullamaError as error:
        seen = _last_seen.get(host) or (_absent(host, error),)
        return tuple(replace(device, fault=error.message) for device in seen)
    return _last_seen[host]


def _lent(host: str) -> Iterator[Device]:
    from mullama.engines.llamacpp.rpc.ask import ask_devices

    for number, lent in enumerate(ask_devices(host)):
        yield Device(name="", description=f"lent by {host}", total=lent.total, free=lent.free, host=host, number=number)


def _absent(host: str, error: MullamaError) -> Device:
    return Device(name="", description=f"lent by {host}", host=host, fault=error.message)
