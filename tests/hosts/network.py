"""Hosts on this machine: a network namespace each, joined by virtual cables and a bridge in a namespace of its own.

    with Network() as network:
        a = network.host("a")            # a.address, a.prefix for commands
        network.cut("a")                 # from now on each packet from and to it is lost, as after a pulled cable
        network.mend("a")
        network.slow("b", rate="1mbit")  # or delay="80ms", where the kernel has netem

This process has an address in the network, too. The end of the block removes everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

import pytest

_NAMED = "mu{pid}{name}"


class CannotJoin(Exception):
    """The network cannot be made here; the text is the reason."""


@dataclass(frozen=True, slots=True)
class NetworkHost:
    """One host. namespace: the name of its network namespace."""

    name: str
    address: str
    namespace: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that runs on the host."""
        return ("ip", "netns", "exec", self.namespace)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotJoin(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Network:
    """A network of hosts; use it as a context. Raises `CannotJoin` with the reason where it cannot be made."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._bridge = self._named("net")
        self._cable = self._named("c")
        self._block = f"10.214.{self._pid % 250}"
        self._hosts: dict[str, NetworkHost] = {}

    def _named(self, name: str) -> str:
        """Return a name for an interface, of at most 15 characters, that no other process uses."""
        return _NAMED.format(pid=self._pid % 10**7, name=name)

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise CannotJoin("network namespaces need root and the command ip")
        try:
            self._namespace(self._bridge)
            inside = ("ip", "-n", self._bridge)
            _run(*inside, "link", "add", "bridge", "type", "bridge")
            _run(*inside, "link", "set", "bridge", "up")
            _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "here", "netns", self._bridge)
            _run(*inside, "link", "set", "here", "master", "bridge", "up")
            _run("ip", "addr", "add", f"{self._block}.1/24", "dev", self._cable)
            _run("ip", "link", "set", self._cable, "up")
        except CannotJoin:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespaces, and with them their cables."""
        for namespace in (*(host.namespace for host in self._hosts.values()), self._bridge):
            with suppress(CannotJoin):
                _run("ip", "netns", "delete", namespace)
        self._hosts.clear()
        # The kernel removes a namespace later than the command returns.
        with suppress(CannotJoin):
            _run("ip", "link", "delete", self._cable)

    @staticmethod
    def _namespace(name: str) -> None:
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")

    def host(self, name: str) -> NetworkHost:
        """Add a host, or return that of an earlier test. name: at most 4 characters."""
        if name in self._hosts:
            return self._hosts[name]
        namespace = self._named(name)
        made = NetworkHost(name, f"{self._block}.{len(self._hosts) + 10}", namespace)
        self._hosts[name] = made
        self._namespace(namespace)
        inside = ("ip", "-n", self._bridge, "link")
        _run(*inside, "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "-n", self._bridge, "link", "set", "dev", name, "master", "bridge", "up")
        _run("ip", "-n", namespace, "addr", "add", f"{made.address}/24", "dev", "eth0")
        _run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return made

    def cut(self, name: str) -> None:
        """Lose every packet from and to a host. Neither side gets a notice."""
        _run("ip", "-n", self._bridge, "link", "set", "dev", name, "nomaster")

    def mend(self, name: str) -> None:
        """Join a host again."""
        _run("ip", "-n", self._bridge, "link", "set", "dev", name, "master", "bridge")

    def slow(self, name: str, *, delay: str = "", rate: str = "") -> None:
        """Delay or limit what is sent to a host. Raises `CannotJoin` for a kernel without the part that it needs."""
        if delay:
            shape = ["netem", "delay", delay, *(["rate", rate] if rate else [])]
        else:
            shape = ["tbf", "rate", rate, "burst", "16kb", "latency", "500ms"]
        _run("ip", "netns", "exec", self._bridge, "tc", "qdisc", "replace", "dev", name, "root", *shape)


@contextmanager
def joined() -> Iterator[Network]:
    """Yield a network; skip the test with the reason where there can be none."""
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except CannotJoin as error:
            pytest.skip(str(error))
        yield network
