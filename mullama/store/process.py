"""Which process wrote something, and whether it still runs. A number alone does not tell: it is used again."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def host() -> str:
    """This machine and, in a container, this space of process ids."""
    machine = platform.node()
    try:
        return f"{machine} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return machine


def boot() -> str:
    """What tells this start of the machine from the others, "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def born(pid: int) -> str:
    """When a process started, in ticks since the boot; "" when there is none, `?` where the system does not say."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "?" if _answers(pid) else ""
    return "" if state in "ZX" else rest[18]


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which nobody reaped yet, does not."""
    return born(pid) != ""


def birth(pid: int) -> str:
    """This boot and the moment in it when the process began; "" where the system does not say."""
    when, since = boot(), born(pid)
    return f"{when}:{since}" if when and since not in ("", "?") else ""


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
