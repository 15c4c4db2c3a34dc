"""Compute devices other than the CPU: those of this machine, and those of hosts that lend them.

llama.cpp knows a device of a host once its host is added to the process; the engine's name for it is
`host:port/number`. As a program, the module prints the devices of this machine as JSON: the server asks a child,
because a driver that is loaded keeps memory on each device.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from mullama.engines.base import DeviceUse
from mullama.engines.llamacpp.binding.library import start, with_signatures
from mullama.errors import NotFound, Refused, Unsupported
from mullama.struct import Struct

_GPU_TYPES: Final = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU, _IGPU
_CPU_TYPE: Final = 0
_HANDLE = ctypes.c_void_p


class _Properties(ctypes.Structure):
    """`struct ggml_backend_dev_props` of ggml-backend.h."""

    _fields_ = (  # type: ignore[mutable-override]
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 5),
    )


class _Override(ctypes.Structure):
    """`struct llama_model_tensor_buft_override` of llama.h."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buft", _HANDLE))  # type: ignore[mutable-override]


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_backend_dev_count": (ctypes.c_size_t, ()),
    "ggml_backend_dev_get": (_HANDLE, (ctypes.c_size_t,)),
    "ggml_backend_dev_by_type": (_HANDLE, (ctypes.c_int,)),
    "ggml_backend_dev_name": (ctypes.c_char_p, (_HANDLE,)),
    "ggml_backend_dev_type": (ctypes.c_int, (_HANDLE,)),
    "ggml_backend_dev_get_props": (None, (_HANDLE, ctypes.POINTER(_Properties))),
    "ggml_backend_dev_memory": (None, (_HANDLE, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t))),
    "ggml_backend_dev_buffer_type": (_HANDLE, (_HANDLE,)),
    "ggml_backend_buft_name": (ctypes.c_char_p, (_HANDLE,)),
    "ggml_backend_cpu_buffer_type": (_HANDLE, ()),
    "ggml_backend_reg_by_name": (_HANDLE, (ctypes.c_char_p,)),
    "ggml_backend_reg_dev_count": (ctypes.c_size_t, (_HANDLE,)),
    "ggml_backend_reg_dev_get": (_HANDLE, (_HANDLE, ctypes.c_size_t)),
    "ggml_backend_reg_get_proc_address": (_HANDLE, (_HANDLE, ctypes.c_char_p)),
}


@cache
def _ggml() -> Any:
    """Return the binding's libraries with the signatures of ggml-backend.h."""
    return with_signatures(_SIGNATURES)


class NativeDevice(Struct, frozen=True, kw_only=True):
    """A device of the process. name: the engine's name of it."""

    handle: int
    name: str
    description: str = ""
    id: str = ""
    free: int = 0
    total: int = 0

    @property
    def buffer_type(self) -> int:
        """The handle of the type of its buffers."""
        return int(_ggml().ggml_backend_dev_buffer_type(self.handle))

    @property
    def buffer(self) -> str:
        """The name of its buffers in llama.cpp's log."""
        name: bytes = _ggml().ggml_backend_buft_name(self.buffer_type)
        return name.decode()


def _described(handle: int, name: str = "") -> NativeDevice:
    found = _Properties()
    _ggml().ggml_backend_dev_get_props(handle, ctypes.byref(found))
    return NativeDevice(
        handle=handle,
        name=name or found.name.decode(),
        description=(found.description or b"").decode("utf-8", "replace"),
        id=(found.device_id or b"").decode("utf-8", "replace"),
        free=found.memory_free,
        total=found.memory_total,
    )


def local_devices() -> tuple[NativeDevice, ...]:
    """Return the devices of this machine, in llama.cpp's order."""
    start()
    ggml = _ggml()
    handles = [ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count())]
    added = {device.handle for devices in _added.values() for device in devices}
    return tuple(_described(h) for h in handles if ggml.ggml_backend_dev_type(h) in _GPU_TYPES and h not in added)


def lendable_devices() -> tuple[NativeDevice, ...]:
    """Return the devices of this machine, the CPU where there are none, as llama.cpp's rpc-server lends them."""
    return local_devices() or (_described(_ggml().ggml_backend_dev_by_type(_CPU_TYPE)),)


def free_memory(device: NativeDevice) -> int:
    """Return the bytes that are free on a device now."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _ggml().ggml_backend_dev_memory(device.handle, ctypes.byref(free), ctypes.byref(total))
    return free.value


def rpc_function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of the RPC backend. Raises `Unsupported` for a build without it."""
    registry = _ggml().ggml_backend_reg_by_name(b"RPC")
    address = _ggml().ggml_backend_reg_get_proc_address(registry, name.encode()) if registry else None
    if not address:
        raise Unsupported(
            "this build of llama.cpp has no RPC backend",
            hint="build it with CMAKE_ARGS=-DGGML_RPC=ON, as .ci/install does",
        )
    return ctypes.CFUNCTYPE(result, *arguments)(address)


_added: dict[str, tuple[NativeDevice, ...]] = {}


def _host_devices(host: str) -> tuple[NativeDevice, ...]:
    """Return the devices of a host, which is added to the process first.

    Raises `Unavailable` for a host that does not answer, `Unsupported` for another version and for a build without RPC.
    """
    if host not in _added:
        add = rpc_function("ggml_backend_rpc_add_server", _HANDLE, ctypes.c_char_p)
        from mullama.engines.llamacpp.rpc.ask import ask_devices

        ask_devices(host)  # llama.cpp ends the process when the host does not answer
        registry = add(host.encode())
        if not registry:
            raise Refused(f"the RPC host {host} lends no devices")
        # The host is not registered: llama.cpp asks each registered device when it loads a model without named devices,
        # and ends the process when one does not answer.
        count = _ggml().ggml_backend_reg_dev_count(registry)
        handles = (_ggml().ggml_backend_reg_dev_get(registry, number) for number in range(count))
        _added[host] = tuple(_described(handle, f"{host}/{number}") for number, handle in enumerate(handles))
    return _added[host]


def find_device(name: str) -> NativeDevice:
    """Return a device by its name in `WeightsOptions.devices`. Raises `NotFound`, and as `_host_devices`."""
    start()
    host, _, number = name.rpartition("/")
    known = _host_devices(host) if ":" in host and number.isdecimal() else local_devices()
    found = next((device for device in known if device.name == name), None)
    if found is None:
        names = ", ".join(device.name for device in known) or "none"
        raise NotFound(f"llama.cpp has no device {name}", name=name, hint=f"it has {names}")
    return found


def device_names() -> tuple[str, ...]:
    """Return the names of the devices of this machine, in llama.cpp's order."""
    return tuple(device.name for device in local_devices())


def device_list(devices: Sequence[NativeDevice]) -> Any:
    """Return a NULL-terminated array for `llama_model_params.devices`."""
    return (_HANDLE * (len(devices) + 1))(*(device.handle for device in devices), None)


def main_memory_overrides(patterns: Iterable[str]) -> Any:
    """Return the list for `llama_model_params.tensor_buft_overrides` that keeps tensors with these names in RAM."""
    cpu = _ggml().ggml_backend_cpu_buffer_type()
    rows = [_Override(pattern.encode(), cpu) for pattern in patterns]
    return (_Override * (len(rows) + 1))(*rows, _Override(None, None))


_ASSIGNED = re.compile(r"layer +[0-9]+ assigned to device ([^,]+),")


def placed(lines: Sequence[str], devices: Sequence[NativeDevice], *labels: str) -> tuple[DeviceUse, ...]:
    """Return the bytes of buffers with these labels on each device, and the layers, as llama.cpp logged them."""
    native = [_native_name(device) for device in devices]
    assigned = [m[1] for line in lines if (m := _ASSIGNED.search(line))]
    found = []
    for device, name in zip(devices, native, strict=True):
        buffer = re.compile(rf"{re.escape(device.buffer)} (?:{'|'.join(labels)}) =\s*([0-9.]+) MiB")
        count = sum(float(m[1]) for line in lines if (m := buffer.search(line)))
        found.append(DeviceUse(device=device.name, bytes=int(count * 2**20), layers=assigned.count(name)))
    return tuple(use for use in found if use.bytes or use.layers)


def _native_name(device: NativeDevice) -> str:
    name: bytes = _ggml().ggml_backend_dev_name(device.handle)
    return name.decode()


def has_rpc() -> bool:
    """Return True for a build with the RPC backend."""
    return bool(_ggml().ggml_backend_reg_by_name(b"RPC"))


def main() -> None:
    """Print the devices of this machine, or with the argument `lend` those that `mullama rpc` lends, as JSON."""
    found = lendable_devices() if "lend" in sys.argv[1:] else local_devices()
    fields = ("name", "description", "id", "free", "total")
    rows = [{field: getattr(device, field) for field in fields} for device in found]
    sys.stdout.write(json.dumps({"rpc": has_rpc(), "devices": rows}))


if __name__ == "__main__":
    main()
