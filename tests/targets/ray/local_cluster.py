"""A cluster of Ray on this machine: node processes on free ports. Only processes that it started are ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import psutil

RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class LocalCluster:
    """`dashboard` is the address of the dashboard; `http` the port for Serve."""

    def __init__(self, folder: Path, cpus: int = 8, env: Mapping[str, str] = MappingProxyType({})) -> None:
        """env: variables of all nodes."""
        self.folder = folder
        self.address = socket.gethostbyname(socket.gethostname())
        self.gcs, self.port, self.http = free_port(), free_port(), free_port()
        self.dashboard = f"http://127.0.0.1:{self.port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.env = {
            **os.environ,
            "PATH": f"{RAY.parent}:{os.environ['PATH']}",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "120000",  # the default is 15 s, too little on a busy machine
            "MULLAMA_STATE_DIR": str(folder / "state"),
            "MULLAMA_CACHE_DIR": str(folder / "data"),
            "PYTHONPATH": str(folder),
            **env,
        }
        self._start(
            "--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}",
            "--ray-client-server-port", str(free_port()), f"--temp-dir={folder / 'r'}", f"--num-cpus={cpus}",
        )  # fmt: skip
        self._wait()

    def add_node(self, cpus: int = 4) -> subprocess.Popen[bytes]:
        """Start a further node, and wait until it is one."""
        node = self._start(f"--address={self.address}:{self.gcs}", f"--num-cpus={cpus}")
        log, deadline = self.folder / f"node{len(self.nodes) - 1}.log", time.monotonic() + 90
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        return node

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(RAY), "start", *arguments, "--block", "--disable-usage-stats", "--object-store-memory=100000000"]
        command += ["--dashboard-agent-listen-port", str(free_port()), "--dashboard-agent-grpc-port", str(free_port())]
        command += ["--metrics-export-port", str(free_port())]
        with (self.folder / f"node{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        return node

    def _wait(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.dashboard}/api/version", timeout=2):
                return
            if self.nodes[0].poll() is not None:
                break
            time.sleep(0.2)
        raise RuntimeError((self.folder / "node0.log").read_text())

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node with all its processes at once, as a machine that loses its power."""
        self._signal(node, signal.SIGKILL)
        node.wait()

    def freeze(self, node: subprocess.Popen[bytes]) -> None:
        """Stop the processes of a node: it answers nothing and closes nothing, as behind a network that is cut.

        Its proxy ends. All nodes of this machine share one port, and the kernel would give a part of the new
        connections to a proxy that answers nothing; a load balancer leaves out such a node.
        """
        self._signal(node, signal.SIGSTOP)
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(node.pid).children(recursive=True):
                if "ProxyActor" in " ".join(process.cmdline()):
                    process.kill()

    def thaw(self, node: subprocess.Popen[bytes]) -> None:
        """Let a node that was frozen continue."""
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal to all processes of a node. The replicas have sessions of their own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(node.pid)
            for process in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def stop(self) -> None:
        for node in reversed(self.nodes):
            if node.poll() is None:
                self.thaw(node)
                node.send_signal(signal.SIGTERM)
        for node in reversed(self.nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(20)
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def local_cluster(cpus: int = 8, **env: str) -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    cluster = LocalCluster(folder, cpus, env)
    try:
        yield cluster
    finally:
        cluster.stop()
