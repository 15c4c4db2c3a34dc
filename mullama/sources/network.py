"""Connections that can be cancelled, are limited to public addresses on request, and give large bodies directly."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpcore2

from mullama.errors import Refused
from mullama.manifest.host_addresses import IPAddress, addresses_in
from mullama.sources.base import Cancelled
from mullama.struct import Struct

_SLICE: Final = 0.25
"""Seconds between two checks of the deadline and of the cancellation."""
_PIECE: Final = 256 * 1024
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_LONGEST_END: Final = 3


class Cancellation(Exception):
    """The caller has cancelled the request."""


class Deadline(Struct):
    """The time limit of the current request, and its cancellation."""

    until: float = float("inf")
    """The moment of `time.monotonic` at which the request ends."""
    cancelled: Cancelled = lambda: False

    def left(self) -> float:
        """Return the seconds that are left; raise `Cancellation` for a cancelled request."""
        if self.cancelled():
            raise Cancellation
        return self.until - time.monotonic()


class Stream(httpcore2.NetworkStream):
    """A connection that checks its deadline several times a second.

    It gives the HTTP parser the head of a response and keeps the bytes after it. A body of known length can then be
    read by `body`, without the copies that the parser makes.
    """

    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline
        self._in_head = True
        self._tail = b""  # the last bytes of the head so far, because its end may be split between two reads
        self._kept = b""  # bytes after the head
        self._parsed = 0  # bytes after the head that the parser has read

    @property
    def at_body(self) -> bool:
        """True if the next byte is the first one after the head."""
        return not self._in_head and not self._parsed

    def body(self, length: int, timeout: float | None) -> Iterator[bytes]:
        """Yield the next `length` bytes as they arrive; fewer when the connection ends."""
        while length > 0:
            piece, self._kept = self._kept[:length], self._kept[length:]
            piece = piece or self._read(min(length, _PIECE), timeout)
            if not piece:
                return
            length -= len(piece)
            yield piece

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data, self._kept = self._kept, b""
        data = data or self._read(max_bytes, timeout)
        if not self._in_head:
            self._parsed += len(data)
            return data
        found = _END_OF_HEAD.search(self._tail + data)
        if found is None:
            self._tail = (self._tail + data)[-_LONGEST_END:]
            return data
        end = found.end() - len(self._tail)
        self._in_head, self._tail, self._kept = False, b"", data[end:]
        return data[:end]

    def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        waited = 0.0
        while True:
            left = min(self._deadline.left(), (timeout or float("inf")) - waited)
            if left <= 0:
                raise httpcore2.ReadTimeout("no answer in time")
            part = min(_SLICE, left)
            try:
                return self._inner.read(max_bytes, part)
            except httpcore2.ReadTimeout:
                waited += part

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._in_head, self._tail, self._parsed = True, b"", 0
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


Allowed = Callable[[IPAddress], bool]
"""Decides on an address that a connection would be made to."""


class Network(httpcore2.SyncBackend):
    """Connects to hosts, with `allowed` to these addresses only.

    trusted: hosts and ports that the operator has configured, which are reached in any case.
    """

    def __init__(
        self, deadline: Deadline, *, allowed: Allowed | None, trusted: frozenset[tuple[str, int]] = frozenset()
    ) -> None:
        self._deadline, self._allowed, self._trusted = deadline, allowed, set(trusted)

    def trust(self, host: str, port: int) -> None:
        """Add a host that the operator has configured, such as a proxy."""
        self._trusted.add((host.lower(), port))

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        allowed = None if (host.lower(), port) in self._trusted else self._allowed
        address = host if allowed is None else allowed_address(host, port, allowed)
        return Stream(super().connect_tcp(address, port, *args, **kwargs), self._deadline)


def allowed_address(host: str, port: int, allowed: Allowed) -> str:
    """Return an address of the host; raise `Refused` when any of its addresses is not allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore2.ConnectError(f"{host}: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for text in addresses:
        if not all(map(allowed, addresses_in(ipaddress.ip_address(text.partition("%")[0])))):
            if allowed is is_public:
                reason, hint = "which is not a public address", "only the sources in a manifest may be inside a network"
            else:
                reason, hint = "which is an address of this link", "clouds serve the credentials of a machine there"
            raise Refused(f"{host} has the address {text}, {reason}", hint=hint)
    return addresses[0]


def is_public(address: IPAddress) -> bool:
    """True for an address of the public internet."""
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
