"""Identifies processes by pid and start time, because pids are reused."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def host() -> str:
    """Return the name of this machine and, in a container, of its namespace of pids."""
    if sys.platform == "win32":
        import platform

        machine = platform.node()
    else:
        machine = os.uname().nodename  # as platform.node() has it, without the regular expressions of its module
    try:
        return f"{machine} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return machine


def boot_id() -> str:
    """Return the id of the current boot of this machine; "" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """Return the start time of a process in ticks since the boot.

    "" when no such process runs, "?" where the system does not report it. A zombie does not run.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "?" if _exists(pid) else ""
    return "" if state in "ZX" else rest[18]


def alive(pid: int) -> bool:
    """Return True if the process runs; a zombie does not."""
    return start_time(pid) != ""


def process_identity(pid: int) -> str:
    """Return the boot and the start time of a process, which no later process has; "" where they are unknown."""
    boot, start = boot_id(), start_time(pid)
    return f"{boot}:{start}" if boot and start not in ("", "?") else ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
