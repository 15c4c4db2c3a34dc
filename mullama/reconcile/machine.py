"""What this machine has to give: memory, cores and GPUs, as this process may use them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from mullama.plan.observed import Machine

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USAGE = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def observe_machine() -> Machine:
    """Read it now; what cannot be read counts as 0 (unknown)."""
    total, available = _memory()
    limit, usage = _first_number(_CGROUP_LIMITS), _first_number(_CGROUP_USAGE)
    if limit is not None and 0 < limit < total:
        total, available = limit, min(available, max(0, limit - (usage or 0)))
    return Machine(ram_total=total, ram_available=available, gpus=_gpus(), cores=cores())


def cores() -> int:
    """Cores this process may run on: its affinity, bounded by the cgroup's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))


def _memory() -> tuple[int, int]:
    """(total, available) bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
        return values["MemTotal"], values.get("MemAvailable", values["MemTotal"])
    except (OSError, KeyError, IndexError, ValueError):
        pass
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
    return total, total


def _first_number(paths: tuple[str, ...]) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text().strip())
        except (OSError, ValueError):
            continue
    return None


def _gpus() -> tuple[tuple[str, int, int], ...]:
    """(name, total, free) of each GPU that the driver's own tool lists; Apple's shares the main memory."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        total, available = _memory()
        return (("Apple GPU", total, available),)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
        return tuple((name, int(total) * 1024**2, int(free) * 1024**2) for name, total, free in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
