"""Chooses the number of compute threads by the processor time that other processes leave.

llama.cpp's threads meet at a barrier after each operation, a thousand times for one token. A thread that waits for a
core lets all others wait, so on a busy machine two threads can be fifty times slower than one. `choose` is pure;
`ProcessorMeter` reads the counters of the system.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from mullama.machine import allowed_cpus
from mullama.struct import Struct

INTERVAL = 0.5  # seconds between two measurements
STALE = 5.0  # seconds after which a measurement says nothing about now
DELAYED = 0.1  # share of the time in which the threads of this process want to run and must wait
SPARE = 0.75  # cores; less use by others costs less than a thread brings
_BUSY_LOAD = 2.0  # runnable threads for each core: others than this process use the machine


class ProcessorTimes(Struct, frozen=True, kw_only=True):
    """Seconds since some moment; differences count."""

    at: float
    """Of a clock."""
    busy: float
    """Of all usable CPUs together, by all processes but those of low priority."""
    polite: float
    """Of all usable CPUs together, by processes of low priority."""
    own: float
    """Processor time of this process and of the server."""
    delayed: float
    """Time in which threads of this process were ready to run and had no CPU."""


def choose(before: ProcessorTimes, now: ProcessorTimes, *, cores: int, cpus: int) -> int:
    """Return the number of threads to compute with until the next measurement, 1 to `cores`.

    cores, cpus: usable physical cores and hardware threads. Processes of low priority count only where they delay
    this one.
    """
    seconds = max(now.at - before.at, 1e-3)
    own = now.own - before.own
    delayed = now.delayed - before.delayed
    suffers = delayed > DELAYED * (delayed + own) and delayed > 0.01 * seconds
    others = now.busy - before.busy - own + (now.polite - before.polite if suffers else 0.0)
    used = max(0.0, others) / seconds * cores / max(cpus, cores)
    return max(1, min(cores, math.floor(cores - used + SPARE)))


def first_choice(load: float, *, cores: int) -> int:
    """Return the number of threads before the first measurement, by the load average of the last minute.

    A server at work has a load of its own, so only a much higher one tells that others need the cores.
    """
    return 1 if load >= _BUSY_LOAD * cores + 1 else cores


def remark(threads: int, *, cores: int, load: float, declared: int = 0) -> str:
    """Return a sentence about a processor that others use; "" while they leave enough.

    threads: as chosen; declared: as the manifest sets them, 0 for no setting.
    """
    if threads >= min(declared or cores, cores):
        return ""
    busy = f"other processes use the processor (load {load:.0f} on {cores} cores)"
    if declared:
        return f"{busy}: context.threads: {threads} instead of {declared} helps"
    return f"{busy}: {threads} of {cores} threads compute"


class ProcessorMeter:
    """Measures at most every `INTERVAL` seconds, while there is work. Does nothing where the system has no counters."""

    def __init__(
        self,
        cores: int,
        read: Callable[[float], ProcessorTimes | None],
        load: Callable[[], float],
        cpus: int,
    ) -> None:
        self._cores, self._cpus, self._read, self._load = cores, cpus, read, load
        self._times: ProcessorTimes | None = None
        self._due = -math.inf
        self.threads = cores
        """The present choice."""
        self.load = 0.0
        """The load average at the last change."""

    @classmethod
    def here(cls, cores: int) -> ProcessorMeter:
        return cls(cores, read_times, _load_average, len(allowed_cpus()))

    def look(self, now: float) -> bool:
        """Measure if it is time; return True if the choice changed."""
        if now < self._due:
            return False
        before, self._times = self._times, self._read(now)
        self._due = now + INTERVAL
        if self._times is None:
            self._due = math.inf
            return False
        if before is None or now - before.at > STALE:
            threads = first_choice(self._load(), cores=self._cores)
        else:
            threads = choose(before, self._times, cores=self._cores, cpus=self._cpus)
        changed, self.threads = threads != self.threads, threads
        if changed:
            self.load = self._load()
        return changed


def read_times(at: float) -> ProcessorTimes | None:
    """Return the counters of Linux, see proc(5); None on other systems."""
    try:
        busy, polite = _cpu_times(Path("/proc/stat").read_text(encoding="ascii"), allowed_cpus())
        own = sum(_process_time(name) for name in ("self", str(os.getppid())))
        return ProcessorTimes(at=at, busy=busy, polite=polite, own=own, delayed=_run_delay())
    except (OSError, ValueError, IndexError):
        return None


def _cpu_times(text: str, cpus: set[int]) -> tuple[float, float]:
    """Return the seconds that these CPUs worked, without and by processes of low priority."""
    busy = polite = 0
    for line in text.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu" and int(name[3:]) in cpus:
            user, nice, system, _, _, irq, softirq, *steal = map(int, fields[:8])
            busy += user + system + irq + softirq + sum(steal)
            polite += nice
    return busy / _TICKS, polite / _TICKS


def _process_time(name: str) -> float:
    text = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text[text.rindex(")") + 1 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _run_delay() -> float:
    """Return the seconds that all threads of this process waited for a CPU; 0 where the kernel does not count them."""
    total = 0
    for task in os.listdir("/proc/self/task"):
        try:
            total += int(Path(f"/proc/self/task/{task}/schedstat").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError, ValueError):  # the thread ended, or there are no statistics
            continue
    return total / 1e9


def _load_average() -> float:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
