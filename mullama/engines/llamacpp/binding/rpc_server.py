"""The process of `mullama rpc` that serves one client: llama.cpp's RPC server on a free port of loopback.

Arguments: the threads of a CPU device, 0 for all, and the names of the devices. It prints the port, and then serves
until it is killed. It takes another client when one has left.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading

from mullama.engines.llamacpp.binding.devices import lendable_devices, rpc_function
from mullama.machine import usable_cores


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads, *names = sys.argv[1:]
    devices = [device for device in lendable_devices() if not names or device.name in names]
    serve = rpc_function(
        "ggml_backend_rpc_start_server",
        None,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )
    handles = (ctypes.c_void_p * len(devices))(*(device.handle for device in devices))
    port = _free_port()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    serve(f"127.0.0.1:{port}".encode(), None, int(threads) or usable_cores(), len(devices), ctypes.addressof(handles))
    os._exit(1)  # it returns only where it cannot listen


def _end_with_parent() -> None:
    """End when the other end of standard input is closed."""
    sys.stdin.buffer.read()
    os._exit(0)


def _free_port() -> int:
    """Return a port that was free just now: llama.cpp does not tell which one it took for port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
