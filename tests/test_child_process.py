"""The end of a child process."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mullama.child_process import kill

pytestmark = pytest.mark.anyio
ENDLESS = "import os\nwhile True: os.write(1, b'x' * 65536)"


async def started(program: str) -> asyncio.subprocess.Process:
    """Return a process whose output is not read further after its first piece: the limit is one byte."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1
    )


async def test_a_process_whose_output_nobody_reads_ends() -> None:
    process = await started(ENDLESS)
    assert process.stdout is not None
    await process.stdout.readexactly(1)
    await kill(process)
    assert process.returncode == -9


async def test_a_process_that_has_ended_is_no_error() -> None:
    process = await started("")
    await process.wait()
    await kill(process)
    assert process.returncode == 0
