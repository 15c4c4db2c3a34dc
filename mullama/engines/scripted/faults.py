"""Misbehaviour on request, so that what surrounds an engine can be tested against a bad one."""

from __future__ import annotations

import os
import signal
import sys


def misbehave(how: str) -> None:
    """Do what no engine should; reached only in scripts that ask for it."""
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
    """Octets that are no message, on every socket that this process has."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\xff" * 64)
        except OSError:
            continue
