"""The end of a child process that asyncio runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process, and return when it has ended. Its output must have no other reader that waits for more.

    `Process.wait` alone returns only when the pipes have ended too. asyncio stops to read a pipe whose data is not
    taken, so the end of a full one is never seen: the rest of the output is read, and dropped.
    """
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
