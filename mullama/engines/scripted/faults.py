"""Faults on request, to test the code around an engine against a faulty one."""

from __future__ import annotations

import os
import signal
import sys


def misbehave(how: str) -> None:
    """Cause a fault; do nothing for "". Only scripts that ask for a fault call it with one."""
    if how == "crash segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "crash abort":
        os.abort()
    elif how == "crash exit":
        os._exit(1)
    elif how == "hang":
        signal.pause()
    elif how == "flood stderr":
        sys.stderr.write("flood " * 1_000_000 + "\n")
    elif how == "garbage":
        _write_garbage()


def _write_garbage() -> None:
    """Write bytes that are no message to every socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\xff" * 64)
        except OSError:
            continue
