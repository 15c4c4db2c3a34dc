"""A worker's child process: its start, its last output, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from mullama.errors import EngineFailed

# The child's part of the environment: enough to find libraries and devices, no keys and no tokens.
_ENVIRONMENT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION",
    "GGML_VK_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
)  # fmt: skip
# OpenMP threads that spin without bound at barriers ruin everything else on the same cores; threads that sleep
# between two decodes are late for the next one. These counts outlast the half millisecond between two decodes.
_BOUNDED_SPIN = {"GOMP_SPINCOUNT": "60000", "KMP_BLOCKTIME": "2", "GGML_NO_BACKTRACE": "1"}

_KEPT_OUTPUT = 64 * 1024  # bytes
_LAST_OUTPUT_SECONDS = 1.0  # for the output that is still in the pipe when the child has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a worker."""

    message: str
    """One sentence with the exit code or the signal."""

    report: str
    """The end of the child's output."""


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the child's environment, from the parent's."""
    return {**_BOUNDED_SPIN, **{name: env[name] for name in _ENVIRONMENT if name in env}}


class WorkerProcess:
    """One child process. Its output is drained, because a full pipe would stop it; the end of it is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output: deque[bytes] = deque()
        self._output_bytes = 0
        self._drained = asyncio.create_task(self._drain())

    @classmethod
    async def start(cls, descriptor: int) -> WorkerProcess:
        """Start a child that talks over this descriptor. Raises `EngineFailed` when the system refuses it."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "mullama.runtime.worker.child", str(descriptor),
                pass_fds=(descriptor,), start_new_session=True, env=environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise EngineFailed(f"the worker process could not be started: {error}") from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        return await self._process.wait()

    async def wait_death(self) -> Death:
        """Wait for the end and for the last output."""
        code = await self._process.wait()
        # Bounded, because a child of the child may hold the pipe open.
        await asyncio.wait({self._drained}, timeout=_LAST_OUTPUT_SECONDS)
        return self.death(_describe_exit(code))

    def death(self, message: str) -> Death:
        return Death(message=message, report=self.report())

    def kill(self) -> None:
        """Kill the child and its children."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                self._process.kill()

    async def close(self) -> None:
        """Wait for the end and stop draining."""
        await self._process.wait()
        self._drained.cancel()
        await asyncio.gather(self._drained, return_exceptions=True)

    def report(self) -> str:
        """Return the end of the child's output with control characters replaced."""
        text = b"".join(self._output)[-_KEPT_OUTPUT:].decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)

    async def _drain(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(1 << 16):
            self._output.append(data)
            self._output_bytes += len(data)
            while self._output_bytes > _KEPT_OUTPUT and len(self._output) > 1:
                self._output_bytes -= len(self._output.popleft())


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "the worker was killed (SIGKILL: often out of memory)"
    return f"the worker was killed by {name}"
