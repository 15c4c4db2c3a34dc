"""Connections that other machines closed, as the kernel of Linux lists them; see proc(5).

llama.cpp holds a connection to a host as long as it has memory there, and looks at it with the next request alone. By
then the host may have been started again, without the weights.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_CLOSE_WAIT = "08"  # the other side has closed the connection, and this one has not
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def closed_by(hosts: Sequence[str], pid: int) -> list[str]:
    """Return the hosts, `host:port`, that closed a connection which a process still holds.

    Nothing is found on a system that does not list them.
    """
    try:
        table = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii")
        own = set(_sockets(pid))
    except OSError:
        return []
    return [host for host in hosts if host_left(host, table, own)]


def host_left(host: str, table: str, sockets: Collection[str]) -> bool:
    """Return True if a host closed one of these connections. table: `net/tcp` of proc. sockets: their inodes.

    A host with a name is known by its port alone.
    """
    name, _, port = host.rpartition(":")
    address = ""
    with suppress(OSError):  # a name
        address = socket.inet_aton(name)[::-1].hex().upper()
    for line in table.splitlines()[1:]:
        fields = line.split()
        remote, _, there = fields[2].partition(":")
        same = int(there, 16) == int(port) and address in ("", remote)
        if same and fields[3] == _CLOSE_WAIT and fields[9] in sockets:
            return True
    return False


def _sockets(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets that a process holds."""
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):
        with suppress(OSError):  # it is closed by now
            if found := _SOCKET.fullmatch(os.readlink(f"{folder}/{entry}")):
                yield found[1]
