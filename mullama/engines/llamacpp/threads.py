"""How many threads this process may usefully use: its affinity, its physical cores, its cgroup's quota."""

from __future__ import annotations

import os
from pathlib import Path

Threads = tuple[int, int]  # for single tokens, and for many at once

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CPU_ROOT = Path("/sys/devices/system/cpu")


def usable_threads() -> int:
    """Threads for the matrix work of one process, at least 1.

    Two hardware threads of one core share its vector units, so a core counts once.
    """
    cores = _physical_cores(_allowed_cpus())
    quota = cgroup_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def part_of(cores: int, rank: int, of: int) -> int:
    """How many of these cores the engine at `rank` of those that compute at once has, at least 1."""
    return max(1, cores // of + (rank < cores % of))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int], root: Path = _CPU_ROOT) -> int:
    """Distinct cores among these CPUs; each CPU its own core where the system does not tell."""
    siblings = set()
    for cpu in cpus:
        try:
            path = root / f"cpu{cpu}" / "topology" / "thread_siblings_list"
            siblings.add(path.read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


def cgroup_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP_ROOT) -> float | None:
    """CPUs that this process's control groups grant, the smallest on the way up; None without a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            quotas += _quota_of(group)
            if group == base:
                break
    return min(quotas, default=None)


def _quota_of(group: Path) -> list[float]:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return []
    return [] if quota in ("max", "-1") else [int(quota) / int(period)]
