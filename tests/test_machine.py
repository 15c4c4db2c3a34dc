"""CPUs and memory as this process may use them, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.machine import MachineMemory, cpu_quota, physical_cores, usable_cores, usable_memory

GIB = 1024**3


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "300000", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_is_the_smallest_of_the_control_groups(
    membership: str, files: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        write(tmp_path / "root" / name, text)
    assert cpu_quota(write(tmp_path / "cgroup", membership), tmp_path / "root") == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing", tmp_path) is None


def test_two_threads_of_a_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        write(tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list", siblings)
    assert physical_cores({0, 1, 2, 3}, tmp_path) == 2
    assert physical_cores({0, 2}, tmp_path) == 1
    assert physical_cores({7, 8}, tmp_path) == 2


def test_this_process_may_use_at_least_one_core() -> None:
    assert usable_cores() >= 1


def meminfo(folder: Path, total: int, available: int) -> Path:
    return write(
        folder / "meminfo", f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\nHugetlb: 0\n"
    )


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {}, MachineMemory(16 * GIB, 12 * GIB)),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/memory.current": "7"}, MachineMemory(16 * GIB, 12 * GIB)),
        ("0::/a/b\n", {"a/memory.max": 8 * GIB, "a/memory.current": 3 * GIB}, MachineMemory(8 * GIB, 5 * GIB)),
        (
            "0::/a\n",
            {"a/memory.max": 8 * GIB, "a/memory.current": 7 * GIB, "a/memory.stat": f"inactive_file {4 * GIB}\n"},
            MachineMemory(8 * GIB, 5 * GIB),
        ),
        (
            "0::/a/b\n",  # the group's own limit is the smaller one, and its parent has less left
            {
                "a/b/memory.max": 2 * GIB, "a/b/memory.current": 0,
                "a/memory.max": 4 * GIB, "a/memory.current": 3 * GIB,
            },
            MachineMemory(2 * GIB, 1 * GIB),
        ),
        ("0::/\n", {"memory.max": 8 * GIB, "memory.current": 9 * GIB}, MachineMemory(8 * GIB, 0)),
        ("0::/\n", {"memory.max": 64 * GIB, "memory.current": 60 * GIB}, MachineMemory(16 * GIB, 12 * GIB)),
        (
            "9:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": 8 * GIB, "memory/x/memory.usage_in_bytes": 6 * GIB,
                "memory/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
                "memory/memory.limit_in_bytes": 9223372036854771712, "memory/memory.usage_in_bytes": 15 * GIB,
            },
            MachineMemory(8 * GIB, 3 * GIB),
        ),
        ("9:cpu:/x\n", {"memory/x/memory.limit_in_bytes": GIB}, MachineMemory(16 * GIB, 12 * GIB)),
    ],
)  # fmt: skip
def test_memory_is_bounded_by_every_control_group_on_the_way_up(
    membership: str, files: dict[str, object], expected: MachineMemory, tmp_path: Path
) -> None:
    for name, value in files.items():
        write(tmp_path / "root" / name, str(value))
    group, info = write(tmp_path / "cgroup", membership), meminfo(tmp_path, 16 * GIB, 12 * GIB)
    assert usable_memory(group, tmp_path / "root", info) == expected


def test_without_meminfo_the_memory_is_that_of_the_system_call(tmp_path: Path) -> None:
    memory = usable_memory(tmp_path / "nothing", tmp_path, tmp_path / "nothing")
    assert memory.total == memory.available > 0
