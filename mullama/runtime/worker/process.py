"""A worker's child process: its start, its last output, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
from collections import deque
from enum import Enum
from pathlib import Path

from mullama.errors import EngineFailed
from mullama.runtime.worker.spawn import ChildProcess
from mullama.runtime.worker.watchdog import ProcessUsage
from mullama.struct import Struct

_KEPT_OUTPUT = 64 * 1024  # bytes
_KILL_SECONDS = 10.0  # that a killed process may take to end
_LAST_OUTPUT_SECONDS = 1.0  # for the output that is still in the pipe when the child has ended


class DeathCause(Enum):
    """The end of a worker, as far as it tells whose fault it is."""

    CRASH = "crash"
    """A fault inside the process: a fatal signal of its own code, an exit code, or bytes that are no message."""
    HANG = "hang"
    """It made no progress and was killed for it."""
    OUTSIDE = "outside"
    """Another process ended or stopped it, or the system was out of memory."""


class Death(Struct, frozen=True, kw_only=True):
    """The end of a worker."""

    message: str
    """One sentence with the exit code or the signal."""

    report: str
    """The end of the child's output."""

    cause: DeathCause

    lost_host: str = ""
    """The RPC host whose loss ended the worker, "" for another cause."""

    work: tuple[object, ...] = ()
    """The requests that the worker had not finished, each as its caller named it; None for other work."""


# llama.cpp aborts when an RPC host is gone: RPC_STATUS_ASSERT and rpc_dispatcher::start of ggml-rpc.cpp.
_LOST_HOST = (
    "Remote RPC server crashed or returned malformed response",
    "Failed to connect to ",
    "RPC handshake failed",
)

# Signals by which a process ends for a fault of its own; names, because not every system has all of them.
_FAULTS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP")


class WorkerProcess:
    """One child process. Its output is drained, because a full pipe would stop it; the end of it is kept."""

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._output: deque[bytes] = deque()
        self._output_bytes = 0
        self._drained = asyncio.create_task(self._drain())
        # asyncio waits only for processes that it started itself.
        threading.Thread(target=self._await_exit, name=f"exit of {process.pid}", daemon=True).start()

    def _await_exit(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._exit_code.get_loop().call_soon_threadsafe(self._exited, code)

    def _exited(self, code: int) -> None:
        if not self._exit_code.done():
            self._exit_code.set_result(code)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        return await asyncio.shield(self._exit_code)

    async def wait_death(self) -> Death:
        """Wait for the end and for the last output."""
        code = await self.wait()
        # Bounded, because a child of the child may hold the pipe open.
        await asyncio.wait({self._drained}, timeout=_LAST_OUTPUT_SECONDS)
        return self.death(_describe_exit(code), cause_of(code))

    def death(self, message: str, cause: DeathCause) -> Death:
        return Death(message=message, report=self.report(), cause=cause)

    def kill(self) -> None:
        """Kill the child and its children."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                self._process.kill()

    async def killed(self) -> None:
        """Wait for the end after a kill; not for long: the system ends a process that waits for a device afterwards."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self.wait()

    async def close(self) -> None:
        """Stop draining and close the pipe."""
        self._drained.cancel()
        await asyncio.gather(self._drained, return_exceptions=True)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def report(self) -> str:
        """Return the end of the child's output with control characters replaced."""
        text = b"".join(self._output)[-_KEPT_OUTPUT:].decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)

    async def _drain(self) -> None:
        assert self._process.stdout is not None
        reader = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        with contextlib.closing(pipe):
            while data := await reader.read(1 << 16):
                self._output.append(data)
                self._output_bytes += len(data)
                while self._output_bytes > _KEPT_OUTPUT and len(self._output) > 1:
                    self._output_bytes -= len(self._output.popleft())

    def usage(self) -> ProcessUsage | None:
        """Return the resources that the child has used; None where the system does not report them."""
        try:
            fields = _stat(self.pid)
            return ProcessUsage(
                cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
                memory=int(fields[21]) * _PAGE,
                read=_bytes_read(self.pid),
            )
        except (OSError, ValueError, IndexError):
            return None

    @property
    def suspended(self) -> bool:
        """True for a child that a signal or a debugger stopped."""
        try:
            return _stat(self.pid)[0] in ("T", "t")
        except (OSError, IndexError):
            return False


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on; see proc(5)."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text[text.rindex(")") + 1 :].split()


def _bytes_read(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    except OSError:  # a container may hide it
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), 0)


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})


class OutOfResources(EngineFailed):
    """The system has no descriptor, process or memory left for a worker. Nothing is wrong with its model."""


class HostLost(EngineFailed):
    """A host that lends devices does not answer. Nothing is wrong with the model, nor with its requests."""


def lost_connection(report: str) -> bool:
    """Return True for the output of a process that llama.cpp ended for a lost RPC host."""
    return any(line in report for line in _LOST_HOST)


def start_failure(error: OSError) -> EngineFailed:
    """Return the failure of a worker that the system does not start."""
    message = f"the worker process could not be started: {error}"
    if error.errno in _EXHAUSTED:
        return OutOfResources(
            message, hint="it is tried again; raise the limit of open files (ulimit -n)", retry_after=2.0
        )
    return EngineFailed(message)


def cause_of(code: int) -> DeathCause:
    """Return the cause of an end by this exit code, negative for a signal."""
    if code == 0:
        return DeathCause.OUTSIDE
    if code > 0:
        return DeathCause.CRASH
    try:
        return DeathCause.CRASH if signal.Signals(-code).name in _FAULTS else DeathCause.OUTSIDE
    except ValueError:
        return DeathCause.OUTSIDE


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
