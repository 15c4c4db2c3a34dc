"""Listening sockets: bind an address, and remove the files of unix sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from mullama.errors import Conflict, Refused
from mullama.manifest.addresses import Address, TcpAddress, UnixAddress
from mullama.server.http.accepting import ListeningSocket
from mullama.server.http.port_owner import holder_of_port
from mullama.struct import Struct

BACKLOG = 2048
"""Connections that may wait to be accepted, if the system allows as many; further clients retry after a second."""


class PortInUse(Conflict):
    """Another process listens on the address."""


class Bound(Struct, frozen=True, kw_only=True):
    """Listening sockets. `address` has the port that the system chose; `inode` is that of a unix socket's file."""

    address: Address
    sockets: tuple[socket.socket, ...]
    inode: int | None = None

    def unlink(self) -> None:
        """Remove the file of a unix socket, unless another file has taken its place."""
        if isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                if os.stat(self.address.path).st_ino == self.inode:
                    os.unlink(self.address.path)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names under which clients may address this listener: the host as written, and its IP addresses."""
        if isinstance(self.address, UnixAddress):
            return ()
        numbers = (str(each.getsockname()[0]) for each in self.sockets)
        return tuple(dict.fromkeys((self.address.host, *numbers)))


def bind(address: Address) -> Bound:
    """Listen on all IP addresses of the host, or raise `PortInUse` or `Refused`."""
    if isinstance(address, UnixAddress):
        opened = _bind_unix(address)
        return Bound(address=address, sockets=(opened,), inode=os.stat(address.path).st_ino)
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
    # Bytes spare the codec of international names, whose tables take a while to import.
    host = address.host.encode("ascii") if address.host.isascii() else address.host
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
    """Return whether ::1 can be bound. Containers often resolve it and do not have it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _bind_tcp(family: int, address: TcpAddress) -> socket.socket:
    opened = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address.host, address.port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _cannot(address, error) from error
    opened.setblocking(False)
    return opened


def _bind_unix(address: UnixAddress) -> socket.socket:
    path = address.path
    _clear_stale(path)
    opened = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the socket's file must never be open to other users, not even until a chmod
    try:
        opened.bind(path)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise _cannot(address, error) from error
    finally:
        os.umask(before)
    opened.setblocking(False)
    return opened


def _clear_stale(path: str) -> None:
    """Remove a socket file without a listener. Raise if it has one, or if the file is not a socket."""
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
