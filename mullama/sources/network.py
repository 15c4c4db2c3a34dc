"""Connections: to public addresses only if so told, given up when nobody wants the answer, read past the parser."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpcore2

from mullama.errors import Refused
from mullama.sources.base import Cancelled

_SLICE: Final = 0.25
_PIECE: Final = 256 * 1024
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_LONGEST_END: Final = 3


class Cancellation(Exception):
    """The caller does not want the answer any more."""


@dataclass(slots=True)
class Deadline:
    """Until when the current request may wait, and whether anybody still wants it."""

    until: float = float("inf")
    cancelled: Cancelled = lambda: False

    def left(self) -> float:
        if self.cancelled():
            raise Cancellation
        return self.until - time.monotonic()


class Stream(httpcore2.NetworkStream):
    """A connection that looks up several times a second whether it should still wait.

    It gives the parser of HTTP the head of an answer and keeps what came after it, so that a body of known length can
    be read by `body`, without being copied from one buffer to the next on its way.
    """

    def __init__(self, inner: httpcore2.NetworkStream, patience: Deadline) -> None:
        self._inner, self._patience = inner, patience
        self._in_head = True
        self._tail = b""  # the last bytes of the head so far: its end may come in two pieces
        self._kept = b""  # what came after the head
        self._parsed = 0  # bytes after a head that went to the parser

    @property
    def at_body(self) -> bool:
        """Whether the next byte is the first one after the head that was read last."""
        return not self._in_head and not self._parsed

    def body(self, length: int, timeout: float | None) -> Iterator[bytes]:
        """The next `length` bytes as they come; fewer when the connection ends."""
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
            left = min(self._patience.left(), (timeout or float("inf")) - waited)
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
        return Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._patience)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class Network(httpcore2.SyncBackend):
    """Connects, to public addresses only if so told."""

    def __init__(self, patience: Deadline, *, public_only: bool) -> None:
        self._patience, self._public_only = patience, public_only

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.NetworkStream:
        address = public_address(host, port) if self._public_only else host
        return Stream(super().connect_tcp(address, port, *args, **kwargs), self._patience)


def public_address(host: str, port: int) -> str:
    """An address of `host` that the whole internet may reach; `Refused` when any of its addresses is not."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore2.ConnectError(f"{host}: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_global:
            raise Refused(
                f"{host} leads to {text}, which is not a public address",
                hint="only the manifest may name hosts inside a network",
            )
    return addresses[0]
