"""Starts the two servers that are compared, each with its own folder and port, and ends them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mullama.cli.inference.load_test import Load, Measured, run
from mullama.client.address import ServerAddress

_SECONDS = 300.0


class Server:
    """A running server."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def cpu(self) -> float:
        """Return the seconds of CPU time of the server and its workers so far."""
        server = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
        return float(sum(time.user + time.system for time in times))

    def processor_times(self) -> tuple[float, float]:
        """Return the seconds of processor time so far: of the server process, and of its workers together.

        To the nanosecond where Linux counts so, else to the tick of its clock.
        """
        server = psutil.Process(self.process.pid)
        workers = server.children(recursive=True)
        return _processor_time(server), sum(map(_processor_time, workers))

    def resident(self) -> int:
        """Return the resident bytes of the worker with the most, which has the model."""
        workers = psutil.Process(self.process.pid).children(recursive=True)
        return max(worker.memory_info().rss for worker in workers)

    def load(self, **options: Any) -> Measured:
        return asyncio.run(self.load_async(**options))

    async def load_async(self, **options: Any) -> Measured:
        return await run(ServerAddress.parse(self.url), Load(**{"model": "bench", **options}))


@contextmanager
def mullama(models: Mapping[str, Mapping[str, Any]], **blocks: Any) -> Iterator[Server]:
    """Run `mullama serve` with these models and further blocks of a manifest until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mullama-bench-") as folder:
        port = _free_port()
        tree = {"mullama": "v1", "server": {"listen": [f"127.0.0.1:{port}"]}, "models": models, **blocks}
        Path(folder, "mullama.yaml").write_text(json.dumps(tree))  # JSON is YAML
        env = {**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder, "MULLAMA_STATE_DIR": f"{folder}/state"}
        env = {name: value for name, value in env.items() if name not in ("MULLAMA_HOST", "XDG_DATA_HOME")}
        command = [sys.executable, "-m", "mullama", "serve", "-f", "mullama.yaml"]
        yield from _running(command, f"http://127.0.0.1:{port}", "/readyz", folder, env)


@contextmanager
def llama_server(
    binary: Path, model: Path, *, threads: int, size: int, parallel: int, name: str = "bench", extra: Sequence[str] = ()
) -> Iterator[Server]:
    """Run llama-server with room for `parallel` requests of `size` tokens each until the block ends."""
    with tempfile.TemporaryDirectory(prefix="peer-bench-") as folder:
        port = _free_port()
        command = [str(binary), "-m", str(model), "-a", name, "-t", str(threads), "--port", str(port)]
        command += ["-c", str(size * parallel), "-np", str(parallel), *extra]
        yield from _running(command, f"http://127.0.0.1:{port}", "/health", folder, dict(os.environ))


def _processor_time(process: psutil.Process) -> float:
    try:
        return time.clock_gettime((~process.pid << 3) | 2)  # Linux: the clock of a process, MAKE_PROCESS_CPUCLOCK
    except OSError:
        times = process.cpu_times()
        return float(times.user + times.system)


def _running(command: list[str], url: str, health: str, folder: str, env: dict[str, str]) -> Iterator[Server]:
    log = Path(folder, "log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        _wait(url + health, process, log)
        yield Server(url, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.01)
    raise SystemExit(f"{url} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
