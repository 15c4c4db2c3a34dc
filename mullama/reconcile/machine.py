"""The resources of this machine: memory, cores and GPUs, as this process may use them."""

from __future__ import annotations

import os
import shutil
import sys

from mullama.machine import usable_cores, usable_memory
from mullama.plan.observed import Machine


def observe_machine() -> Machine:
    """Read the resources now; 0 is unknown."""
    memory = usable_memory()
    return Machine(ram_total=memory.total, ram_available=memory.available, gpus=_gpus(), cores=usable_cores())


def _gpus() -> tuple[tuple[str, int, int], ...]:
    """Return (name, total bytes, free bytes) of each GPU that the driver lists. Apple's GPU shares the main memory."""
    if sys.platform == "darwin" and os.uname().machine == "arm64":
        memory = usable_memory()
        return (("Apple GPU", memory.total, memory.available),)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    import subprocess

    query = [tool, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines() if line.strip()]
        return tuple((name, int(total) * 1024**2, int(free) * 1024**2) for name, total, free in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
