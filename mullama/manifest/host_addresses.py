"""Addresses of hosts, and those of the link, at which clouds serve the credentials of a machine. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_METADATA: Final = (ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200"))
"""Addresses outside link-local networks at which clouds serve metadata."""
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_host(address: IPAddress) -> bool:
    """True for the address of one host, inside a network or outside, but not of the link: those serve metadata."""
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA)


def addresses_in(address: IPAddress) -> tuple[IPAddress, ...]:
    """Return the address with the IPv4 address that a translator or tunnel takes out of it."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return (inner,) if address.ipv4_mapped and inner else (address, inner) if inner else (address,)


def address_of(host: str) -> IPAddress | None:
    """Return the address that the text of a host is, without a look-up; None for a name.

    Resolvers also read the forms of `inet_aton`: fewer parts, and parts in octal or hexadecimal.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _short_address(host)


def _short_address(host: str) -> IPAddress | None:
    parts = host.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):
        return None
    try:
        *first, last = (int(part, 8 if part[:1] == "0" and part[1:2] not in ("", "x", "X") else 0) for part in parts)
        packed = bytes(first) + last.to_bytes(4 - len(first), "big")
    except (ValueError, OverflowError):  # a part that is too large, or no digit of its base
        return None
    return ipaddress.IPv4Address(packed)
