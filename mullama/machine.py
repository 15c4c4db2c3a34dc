"""The CPUs and the memory of this machine, as far as this process may use them.

A control group grants no more than each of its parents, so limits are read from the group of this process up to the
root. Version 2 keeps one tree of groups; version 1 keeps one tree for each controller.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mullama.struct import Struct

GPU_MASKS: Final = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
)  # fmt: skip
"""Variables with which a user names the GPUs that a process may use."""
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_CPU_ROOT: Final = Path("/sys/devices/system/cpu")
_MEMINFO: Final = Path("/proc/meminfo")


class MachineMemory(Struct, frozen=True):
    """Main memory in bytes; 0 where the system does not report it."""

    total: int
    available: int


def usable_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Bounds: the affinity of the process and the CPU quota of its control groups. Two hardware threads of one core
    share its vector units, so a core counts once.
    """
    cores, quota = physical_cores(allowed_cpus()), cpu_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def physical_cores(cpus: set[int], root: Path = _CPU_ROOT) -> int:
    """Return the number of distinct cores among these CPUs; each CPU is a core where the topology is unknown."""
    siblings = set()
    for cpu in cpus:
        try:
            siblings.add((root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


def cpu_quota(membership: Path = _MEMBERSHIP, root: Path = _CGROUP_ROOT) -> float | None:
    """Return the CPUs that the control groups of this process grant; None without a limit."""
    return min((quota for group in _groups("cpu", membership, root) for quota in _quota(group)), default=None)


def usable_memory(membership: Path = _MEMBERSHIP, root: Path = _CGROUP_ROOT, meminfo: Path = _MEMINFO) -> MachineMemory:
    """Return the memory of the machine, bounded by the limits of the control groups of this process."""
    machine = _machine_memory(meminfo)
    granted = [memory for group in _groups("memory", membership, root) if (memory := _group_memory(group))]
    # Version 1 reports a number beyond all memory for "no limit", and 0 is no limit to run under.
    levels = [machine, *(memory for memory in granted if 0 < memory.total < machine.total)]
    return MachineMemory(min(level.total for level in levels), min(level.available for level in levels))


def allowed_cpus() -> set[int]:
    """Return the CPUs on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _groups(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of this process for a controller, from its own up to the root."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            yield group
            if group == base:
                break


def _quota(group: Path) -> list[float]:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return [] if quota in ("max", "-1") else [int(quota) / int(period)]
    except (OSError, ValueError, ZeroDivisionError):
        return []


def _group_memory(group: Path) -> MachineMemory | None:
    """Return the limit of a control group and what is left of it; None without a limit.

    The kernel drops the inactive file cache before it refuses memory, so that cache counts as available.
    """
    names = ("memory.max", "memory.current", "inactive_file")
    if not (group / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit = int((group / names[0]).read_text())  # "max" is no number
        used = int((group / names[1]).read_text())
    except (OSError, ValueError):
        return None
    cache = _numbers(group / "memory.stat", " ").get(names[2], 0)
    return MachineMemory(limit, max(0, limit - max(0, used - cache)))


def _machine_memory(meminfo: Path) -> MachineMemory:
    values = _numbers(meminfo, ":")
    if total := values.get("MemTotal", 0) * 1024:
        return MachineMemory(total, values.get("MemAvailable", values["MemTotal"]) * 1024)
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return MachineMemory(0, 0)
    return MachineMemory(total, total)


def _numbers(path: Path, separator: str) -> dict[str, int]:
    """Return the first number of each line of a file such as `MemTotal:  16303428 kB`, by name."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = ((name, text.split()) for name, _, text in (line.partition(separator) for line in lines))
    return {name: int(words[0]) for name, words in pairs if words and words[0].isdecimal()}
