"""Turns HTML into text in a process of its own.

The parsers of HTML are native code, and some pages of two megabytes take them minutes. The process is ended then, and
the server continues.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from mullama.child_process import kill
from mullama.errors import TimedOut, Unavailable, Unsupported
from mullama.struct import Struct

HEAD: Final = ">I"
"""The length of a frame, for `struct`."""
MOST_TEXT: Final = 200_000
"""Characters of the text of a page."""
_MOST_FRAME: Final = 8 * MOST_TEXT + 2**16
# A page decides nothing by the environment, and its process has no secret of it.
_ENVIRONMENT: Final = (
    "PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG",
)  # fmt: skip
_COMMAND: Final = (sys.executable, "-I", "-m", "mullama.tools.search.page_process")


class PageText(Struct, frozen=True, kw_only=True):
    """The text of a page."""

    title: str
    text: str


def require_parser() -> None:
    """Raise `Unsupported` without the extra. Nothing of it is imported."""
    if find_spec("trafilatura") is None:
        raise Unsupported(
            "web pages are read by the package trafilatura, which is not installed",
            hint="pip install 'mullama[search]' installs it; search.pages: 0 searches without it",
        )


class PageReader:
    """Reads one page after the other. Its process starts with the first one, and ends after a pause.

    seconds: the most time of one page. idle: the pause in seconds. command: that of the process.
    """

    def __init__(self, *, seconds: float = 10.0, idle: float = 60.0, command: Sequence[str] = _COMMAND) -> None:
        self._seconds, self._idle, self._command = seconds, idle, command
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._rest: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """True while the process waits for pages or reads one."""
        return self._process is not None

    async def read(self, html: str) -> PageText:
        """Return the text of a page. Raises `TimedOut`, and `Unavailable` for a page that cannot be read."""
        async with self._turn:
            self._rouse()
            try:
                async with asyncio.timeout(self._seconds):
                    answer = json.loads(await self._answer(html))
            except TimeoutError as error:
                await self._end()
                raise TimedOut(f"the page took longer than {self._seconds:g} s to read") from error
            except (asyncio.IncompleteReadError, OSError, ValueError) as error:
                await self._end()
                raise Unavailable("the page cannot be read") from error
            except BaseException:
                await self._end()  # its answer would be that of the next page
                raise
            self._rest = asyncio.create_task(self._end_after_pause())
            return PageText(title=answer["title"], text=answer["text"])

    async def aclose(self) -> None:
        """End the process; a page in progress cannot be read then."""
        self._rouse()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        async with self._turn:  # the page in progress has failed then, and reads the output no longer
            await self._end()

    async def _answer(self, html: str) -> bytes:
        process = self._process = self._process or await self._spawn()
        assert process.stdin is not None
        assert process.stdout is not None
        data = json.dumps({"html": html, "seconds": self._seconds}).encode()
        process.stdin.write(struct.pack(HEAD, len(data)) + data)
        await process.stdin.drain()
        (length,) = struct.unpack(HEAD, await process.stdout.readexactly(struct.calcsize(HEAD)))
        if length > _MOST_FRAME:
            raise ValueError(length)
        return await process.stdout.readexactly(length)

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )  # fmt: skip

    def _rouse(self) -> None:
        """Keep the process from its end after a pause."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.cancel()

    async def _end_after_pause(self) -> None:
        await asyncio.sleep(self._idle)
        async with self._turn:
            if self._rest is asyncio.current_task():
                self._rest = None
                await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.shield(kill(process))
