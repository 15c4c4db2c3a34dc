"""Asks a host for the devices that it lends. It needs no llama.cpp, and waits no longer than it is allowed to."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from mullama.engines.llamacpp.rpc import frames
from mullama.errors import Unavailable, Unsupported

SECONDS = 5.0
"""The longest wait for a host. One of llama.cpp's own servers keeps others waiting while it serves a client."""
_LONGEST = 4096  # bytes of a reply


@dataclass(frozen=True, slots=True)
class LentDevice:
    """The memory of a device that a host lends, in bytes."""

    free: int
    total: int


class HostBusy(Unavailable):
    """A host accepts connections and does not answer: it serves another client, or hangs."""


def ask_devices(host: str, seconds: float = SECONDS) -> tuple[LentDevice, ...]:
    """Return the devices of a host, `host:port`, in its order.

    Raises `Unavailable` for a host that does not answer, `Unsupported` for one with another protocol.
    """
    name, _, port = host.rpartition(":")
    try:
        connection = socket.create_connection((name, int(port)), timeout=seconds)
    except OSError as error:
        raise _no_answer(host, error.strerror or str(error)) from error
    try:
        with connection:
            connection.settimeout(seconds)
            version = _ask(connection, frames.HELLO, frames.HELLO_DATA)
            if not version or version[0] != frames.VERSION:
                other = version[0] if version else "no version"
                raise Unsupported(
                    f"the RPC host {host} speaks version {other} of llama.cpp's RPC, this build {frames.VERSION}",
                    hint="both need the same llama.cpp",
                )
            (count,) = frames.COUNT.unpack(_ask(connection, frames.DEVICE_COUNT))
            numbers = map(frames.COUNT.pack, range(min(count, 64)))
            found = (frames.MEMORY.unpack(_ask(connection, frames.GET_DEVICE_MEMORY, number)) for number in numbers)
            return tuple(LentDevice(free=free, total=total) for free, total in found)
    except TimeoutError as error:
        raise HostBusy(
            f"the RPC host {host} does not answer within {seconds:g} s",
            hint="llama.cpp's rpc-server serves one client at a time; mullama rpc serves several",
            retry_after=2.0,
        ) from error
    except (OSError, EOFError, ValueError, frames.MALFORMED) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _no_answer(host, reason) from error


def _no_answer(host: str, reason: str) -> Unavailable:
    text = f"the RPC host {host} does not answer: {reason}"
    return Unavailable(text, hint=f"start it there: mullama rpc --listen {host}", retry_after=2.0)


def _ask(connection: socket.socket, command: int, data: bytes = b"") -> bytes:
    connection.sendall(frames.request(command, data))
    (length,) = frames.LENGTH.unpack(receive(connection, frames.LENGTH.size))
    if length > _LONGEST:
        raise ValueError(f"a reply of {length} bytes")
    return receive(connection, length)


def receive(connection: socket.socket, count: int) -> bytes:
    """Return exactly so many bytes. Raises `EOFError` when the other side closed the connection."""
    parts = bytearray()
    while len(parts) < count:
        if not (part := connection.recv(count - len(parts))):
            raise EOFError("it closed the connection")
        parts += part
    return bytes(parts)
