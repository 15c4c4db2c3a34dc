"""Addresses to listen on: `host:port`, `[ipv6]:port`, `unix:PATH`."""

from __future__ import annotations

import ipaddress
import re

from mullama.errors import Invalid
from mullama.struct import Struct

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*")
_TCP = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_LONGEST_UNIX_PATH = 107  # bytes of sun_path on Linux, without the final zero
_HINT = "127.0.0.1:11434, [::1]:11434 or unix:./mullama.sock"


class TcpAddress(Struct, frozen=True, kw_only=True):
    """A host name or IP address without brackets, and a port; port 0 takes a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True if only this machine can reach the address. A name other than localhost may resolve to any address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(Struct, frozen=True, kw_only=True):
    """A socket in the file system, for the processes that may open its file. Raises `Invalid` for a long path."""

    path: str

    def __post_init__(self) -> None:
        if (length := len(self.path.encode("utf-8", "surrogateescape"))) > _LONGEST_UNIX_PATH:
            raise Invalid(
                f"the path of the unix socket has {length} bytes, the limit is {_LONGEST_UNIX_PATH} bytes",
                hint="choose a shorter folder, for example under /run",
            )

    @property
    def loopback(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Return the address; raise `Invalid` for text that a server could not bind to."""
    if text.startswith("unix:"):
        if not (path := text.removeprefix("unix:")):
            raise Invalid("'unix:' is not an address to listen on: it has no path", hint=_HINT)
        return UnixAddress(path=path)
    if not (m := _TCP.fullmatch(text)):
        raise Invalid(f"{text[:80]!r} is not an address to listen on", hint=_HINT)
    host, port = m["v6"] or m["host"], int(m["port"])
    if port > 65_535:
        raise Invalid(f"{port} is not a port", hint="0 to 65535; 0 takes a free one")
    if m["v6"] or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            raise Invalid(f"{host!r} is not an IP address", hint=_HINT) from error
    elif not _HOST.fullmatch(host):
        raise Invalid(f"{host[:80]!r} is not a host name", hint=_HINT)
    return TcpAddress(host=host, port=port)


def parse_rpc_host(text: str) -> TcpAddress:
    """Return the address of an RPC server; raise `Invalid` for text that llama.cpp cannot connect to.

    Its RPC client reads `host:port` and resolves names to IPv4 addresses alone.
    """
    hint = "host:port, such as 10.0.0.2:50052"
    if text.startswith("[") or text.count(":") > 1:
        raise Invalid(f"{text[:80]!r} is an IPv6 address, which llama.cpp's RPC cannot use", hint=hint)
    if not _TCP.fullmatch(text):
        raise Invalid(f"{text[:80]!r} is not the address of an RPC server", hint=hint)
    address = parse_address(text)
    assert isinstance(address, TcpAddress)
    if address.port == 0:
        raise Invalid("0 is not a port to connect to", hint=hint)
    return address
