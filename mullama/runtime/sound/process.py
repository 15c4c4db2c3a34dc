"""Windows of a sound from the process that decodes it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from typing import IO

from mullama.child_process import kill
from mullama.codec import from_tree, to_tree
from mullama.errors import Invalid, MullamaError, TimedOut, TooLarge, Unsupported
from mullama.runtime.sound.protocol import SoundLine, SoundSettings
from mullama.runtime.worker.spawn import environment
from mullama.struct import Struct

_MOST_LINE = 64 * 2**10
_MOST_IDLE = 300.0
"""Seconds without a window; ten minutes of silence are decoded within a few."""
_ERRORS: dict[str, type[MullamaError]] = {"too_large": TooLarge, "unsupported": Unsupported}


class HeardWindow(Struct, frozen=True, eq=False):
    """A window of a sound, as PCM, 16-bit mono at 16 kHz. Places as in `SoundLine`."""

    line: SoundLine
    pcm: bytes


async def sound_windows(file: IO[bytes], settings: SoundSettings) -> AsyncGenerator[HeardWindow, None]:
    """Yield the windows of a file; the last item has no PCM and the length of the sound.

    The process waits while its windows are not taken, so a long sound needs no more memory than a short one. Closing
    the iterator ends it.

    Raises `Invalid` for a damaged file, `TooLarge` for one beyond the limits, `Unsupported` for a format that cannot
    be read here.
    """
    file.seek(0)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "mullama.runtime.sound.child", json.dumps(to_tree(settings)),
        stdin=file.fileno(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment(os.environ), start_new_session=True, limit=_MOST_LINE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while True:
            window = await _next(process.stdout)
            if window.line.error:
                raise _error_of(window.line)
            yield window
            if window.line.length >= 0:
                return
    finally:
        await kill(process)


async def _next(stream: asyncio.StreamReader) -> HeardWindow:
    try:
        async with asyncio.timeout(_MOST_IDLE):
            text = await stream.readline()
            if not text.endswith(b"\n"):
                raise _damaged()
            line = from_tree(SoundLine, json.loads(text), "sound")
            pcm = await stream.readexactly(line.bytes) if line.bytes else b""
    except asyncio.IncompleteReadError as error:
        raise _damaged() from error
    except TimeoutError as error:
        raise TimedOut("file takes too long to decode", hint="send a shorter one") from error
    return HeardWindow(line, pcm)


def _error_of(line: SoundLine) -> MullamaError:
    kind = _ERRORS.get(line.error)
    if kind is not None:
        return kind(line.message, hint=line.hint)
    return Invalid(line.message, hint=line.hint, field="file")


def _damaged() -> Invalid:
    """Return the error of a file that ended the process: by a crash, or by its limits of memory and time."""
    return Invalid("file is a damaged sound: it cannot be decoded", hint="send the complete file", field="file")
