"""Listening sockets: bind an address, and remove the files of unix sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mullama.errors import Conflict, Refused
from mullama.manifest.addresses import Address, TcpAddress, UnixAddress
from mullama.server.http.port_owner import holder_of_port

BACKLOG = 2048
"""Connections that may wait for the server to take them, if the system allows as many; others try again later."""


class PortInUse(Conflict):
    """Somebody else listens there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Listening sockets; `address` says the port that they really got. `inode` is a unix socket's file."""

    address: Address
    sockets: tuple[socket.socket, ...]
    inode: int | None = None

    def unlink(self) -> None:
        """Remove the file of a unix socket, unless somebody has put another in its place."""
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                if os.stat(self.address.path).st_ino == self.inode:
                    os.unlink(self.address.path)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a client may call this listener: the host as written, and the addresses behind it."""
        if isinstance(self.address, UnixAddress):
            return ()
        numbers = (str(each.getsockname()[0]) for each in self.sockets)
        return tuple(dict.fromkeys((self.address.host, *numbers)))


def bind(address: Address) -> Bound:
    """Listen on all IP addresses of the host. Raise `PortInUse` or `Refused`."""
    if isinstance(address, UnixAddress):
        made = _bind_unix(address)
        return Bound(address=address, sockets=(made,), inode=os.stat(address.path).st_ino)
    with contextlib.ExitStack() as undo:
        bound: list[socket.socket] = []
        port = address.port
        for family, host in _resolve(address):
            bound.append(_bind_tcp(family, TcpAddress(host=host, port=port)))
            undo.callback(bound[-1].close)
            port = bound[0].getsockname()[1]
        undo.pop_all()
    return Bound(address=TcpAddress(host=address.host, port=port), sockets=tuple(bound))


def _resolve(address: TcpAddress) -> Iterator[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Refused(
            f"cannot listen on {address}: {error.strerror}",
            hint="check the host in server.listen",
        ) from error
    seen = dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found)
    families = {family for family, _ in seen}
    for family, host in seen:
        if family == socket.AF_INET6 and len(families) > 1 and not _has_ipv6():
            continue
        yield family, host


def _has_ipv6() -> bool:
    """Whether ::1 can be bound here: containers often resolve it without having it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _bind_tcp(family: int, address: TcpAddress) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address.host, address.port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot(address, error) from error
    made.setblocking(False)
    return made


def _bind_unix(address: UnixAddress) -> socket.socket:
    path = address.path
    _clear_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # for the socket's file to be born private
    try:
        made.bind(path)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot(address, error) from error
    finally:
        os.umask(before)
    made.setblocking(False)
    return made


def _clear_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; never anything else."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused(f"{path} exists and is not a socket", hint="choose another path")
    if _answers(path):
        raise PortInUse(f"another process listens on {path}", hint="stop it, or choose another path")
    Path(path).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _cannot(address: Address, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of_port(address.port) if isinstance(address, TcpAddress) else None
        by = f" by {holder}" if holder else ""
        return PortInUse(
            f"{address} is in use{by}",
            hint="stop what uses it, or choose another address in server.listen",
        )
    return Refused(f"cannot listen on {address}: {error.strerror}", hint="check server.listen in the manifest")
