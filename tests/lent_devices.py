"""Devices without a GPU: processes of `mullama rpc` on loopback, whose devices llama.cpp takes for GPUs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

import pytest
from llama_cpp import llama_supports_rpc

from mullama.units import size

MIB = 1024**2


class LentDevices:
    """One process of `mullama rpc` that lends the CPU with a bounded memory. It is reaped at the end of the block."""

    def __init__(self, memory: int, listen: str = "127.0.0.1:0", prefix: Sequence[str] = ()) -> None:
        if not llama_supports_rpc():
            pytest.skip("this build of llama.cpp has no RPC backend: run .ci/install test")
        self.memory = memory
        self.lines: list[str] = []
        self._told = threading.Condition()
        command = [
            *prefix,
            sys.executable,
            "-m",
            "mullama",
            "rpc",
            "--listen",
            listen,
            "--memory",
            str(memory),
            "-t",
            "1",
        ]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = re.search(r"listens on (\S+);", self.wait_for("listens on"))
        assert found is not None
        self.host = found[1]

    @property
    def device(self) -> str:
        """The engine's name of the device."""
        return f"{self.host}/0"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._told:
                self.lines.append(line.rstrip())
                self._told.notify_all()

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """Return the first line with this text."""
        with self._told:
            self._told.wait_for(lambda: any(text in line for line in self.lines), timeout=seconds)
            found = next((line for line in self.lines if text in line), None)
        assert found is not None, self.lines
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process with a signal and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def __enter__(self) -> LentDevices:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def lends(memory: int) -> str:
    """Return the part of the first line that states the memory."""
    return f"{size(memory, digits=2)} of {size(memory, digits=2)} free"
