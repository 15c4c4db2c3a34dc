"""Starts the process of a worker, with few imports: `serve` does it first, so that the worker starts beside it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, NamedTuple, Protocol

from mullama.machine import GPU_MASKS

# The child's part of the environment: enough to find libraries and devices, no keys and no tokens.
_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    *GPU_MASKS, "CUDA_HOME", "HSA_OVERRIDE_GFX_VERSION", "GPU_DEVICE_ORDINAL", "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG",  # so that `make coverage` measures workers
)  # fmt: skip
# OpenMP threads that spin without bound at barriers ruin everything else on the same cores; threads that sleep
# between two decodes are late for the next one. These counts outlast the half millisecond between two decodes.
# numpy's OpenBLAS would start a thread for each core, which spins while the engine and the server are imported.
_BOUNDED_SPIN = {
    "GOMP_SPINCOUNT": "60000", "KMP_BLOCKTIME": "2", "OPENBLAS_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1",
}  # fmt: skip


class ChildProcess(Protocol):
    """The part of `subprocess.Popen` that a worker's process has."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


class SpawnedWorker(NamedTuple):
    """A process that waits for commands, and our end of the connection to it."""

    process: ChildProcess
    connection: socket.socket

    def end(self) -> None:
        """End the process, if it has not ended."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class SpawnWorker(Protocol):
    """A function like `spawn_worker`."""

    def __call__(self, engine: str = "", /) -> SpawnedWorker: ...


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the child's environment, from the parent's."""
    return {**_BOUNDED_SPIN, **{name: env[name] for name in _ENVIRONMENT if name in env}}


def spawn_worker(engine: str = "") -> SpawnedWorker:
    """Start a child without weights; raise `OSError` when the system refuses it.

    engine: an engine that the child imports at once, which takes about as long as its own start.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "mullama.runtime.worker.child", engine, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), start_new_session=True, env=environment(os.environ),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
    return SpawnedWorker(process, ours)
